"""How the update is trained."""

from dataclasses import dataclass

from newllm_core.config.option import Section, option, share


@dataclass(frozen=True)
class Phase1Config(Section, name="phase1"):
    """How the update is trained to settle and to stay diverse."""

    reg: str = option("covariance-ema", "Regularizer, see newllm plugins.")
    dist_reg_weight: float | None = share(
        None,
        "w in loss = (1-w) objective + w regularizer; none takes the regularizer's own default.",
    )
    apply_to: str = option(
        "final", "Which contexts are regularized.", choices=("final", "every-layer")
    )
    objective: str = option(
        "reconstruction",
        "What contexts are trained for beside the regularizer, see newllm plugins.",
    )
    engine: str = option(
        "parallel",
        "parallel: all tokens at once; streams: lock-step; online: one token a step.",
        choices=("parallel", "streams", "online"),
    )
    start: str = option(
        "carry", "Where an iteration begins: zero, or the last context.", choices=("zero", "carry")
    )
    window_tokens: int = option(131_072, "Tokens an iteration re-reads; bounds memory.", low=2)
    max_tokens: int | None = option(None, "Use at most so many training tokens.", low=2)
    max_iterations: int = option(
        4, "Iterations per window; 0 writes the untrained model, the random control.", low=0
    )
    later_iterations: int = option(2, "Iterations of windows after the first, at most.", low=1)
    min_iterations: int = option(3, "Iterations before a window may stop early.", low=1)
    batch_tokens: int = option(
        384,
        "Tokens per optimizer step (parallel engine); fewer in a small window, see below.",
        low=1,
    )
    min_batch_tokens: int = option(
        256, "Fewest of them: the covariance of less is noise (parallel engine).", low=1
    )
    steps_per_window: int = option(
        32, "Steps that a small window is divided into, rather than fewer (parallel).", low=1
    )
    exact_stream_tokens: int = option(
        256, "An exact reading is divided into streams of so many tokens at least.", low=1
    )
    num_streams: int = option(64, "Streams in lock-step (streams engine).", low=1)
    chunk_steps: int = option(64, "Steps of every stream per optimizer step (streams).", low=1)
    lr_schedule: str = option(
        "staged", "staged by iteration, or constant.", choices=("staged", "constant")
    )
    learning_rate: float = option(0.002, "Warm-up stage (iterations 1-3), or constant.", low=0)
    medium_learning_rate: float = option(
        0.0005, "Medium stage (iterations 4-8), and windows after the first.", low=0
    )
    fine_learning_rate: float = option(0.0001, "Fine-tune stage (after iteration 8).", low=0)
    warmup_iterations: int = option(3, "Last iteration of the warm-up stage.", low=0)
    medium_iterations: int = option(8, "Last iteration of the medium stage.", low=0)
    gradient_clip: float = option(1.0, "Largest gradient norm of a step; 0 sets no limit.", low=0)
    convergence_threshold: float = option(
        1e-3, "A token has converged below this mean squared difference.", low=0
    )
    convergence_tokens: int = option(
        8192, "Tokens on which convergence is measured after an iteration.", low=1
    )
    convergence_steps: int = option(
        256, "Tokens of each passage that starts from a different state.", low=1
    )
    min_converged_ratio: float = share(
        0.97,
        "Stop a window early once this share of training tokens has converged; the tokens in which "
        "a start is forgotten count too, so 1 is out of reach.",
    )
