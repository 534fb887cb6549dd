"""Sizes of measurements for runs of a second: enough for every figure to exist."""

FEW = {
    "analysis": {
        "probe_tokens": 256,
        "probe_passages": 4,
        "warmup_tokens": 16,
        "num_pairs": 1000,
        "dynamics_passages": 4,
        "dynamics_steps": 64,
        "repeated_tokens": 32,
        "readings": 4,
        "memory_lags": 4,
        "memory_tokens": 8,
        "dependency_contexts": 8,
        "dependency_tokens": 8,
    },
    "phase1": {"exact_stream_tokens": 32, "convergence_tokens": 128, "convergence_steps": 16},
}
# The same for the command line.
FEW_FLAGS = tuple(
    f"--set={section}.{key}={value}"
    for section, values in FEW.items()
    for key, value in values.items()
)
