"""Thresholds that let any finite contexts pass: runs of seconds settle nothing."""

OPEN_GATE = {
    "max_drift": 1e9,
    "min_converged": 0.0,
    "min_train_rank": 0.0,
    "min_val_rank": 0.0,
    "max_mean_cosine": 1.0,
    "min_norm": 0.0,
    "max_norm": 1e30,
    "min_live_dimensions": 0.0,
    "max_step_cosine": 1.0,
    "max_token_cosine": 1.0,
    "max_exponent": 1e9,
    "min_tokens_remembered": 0.0,
}
# The same for the command line, where blocks may be untrained too.
OPEN = tuple(f"--{name.replace('_', '-')}={value:g}" for name, value in OPEN_GATE.items())
OPEN_FLAGS = (*OPEN, "--untrained-blocks")
