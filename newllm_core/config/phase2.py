"""How token heads are trained."""

from dataclasses import dataclass

from newllm_core.config.option import Section, option, share
from newllm_core.errors import ConfigError


@dataclass(frozen=True)
class Phase2Config(Section, name="phase2"):
    """How token heads (and, unless frozen, the blocks) are trained."""

    epochs: int = option(3, "Passes over the training tokens.", low=0)
    max_tokens: int | None = option(None, "Use at most so many training tokens.", low=2)
    untrained_blocks: bool = option(
        False,
        "Begin with blocks that Phase 1 did not train; without it the gate refuses them.",
    )
    freeze_context: bool = option(False, "Train heads only, on contexts computed once.")
    train_embeddings: bool = option(True, "Train embeddings too (those of a file never are).")
    bptt: int = option(16, "Tokens of back-propagation through time.", low=1)
    num_streams: int = option(64, "Training streams in lock-step.", low=1)
    batch_tokens: int = option(2048, "Contexts per step with --freeze-context.", low=1)
    learning_rate: float = option(0.003, "Peak of the one-cycle schedule.", low=0)
    warmup_fraction: float = share(0.1, "Share of steps that warm up.")
    weight_decay: float = option(0.01, "AdamW decay of matrices.", low=0)
    eval_tokens: int = option(
        16_384,
        "Validation tokens of the evaluation after an epoch; the last one reads all.",
        low=1,
    )
    candidates: int = option(
        0,
        "Compare the tokens that follow with so many others, drawn anew for each step (a sampled "
        "softmax); 0 compares them with all.",
        low=0,
    )
    candidates_share: float = share(
        0.8, "Share of steps that draw candidates; the last ones compare with all."
    )
    dropout: float = option(0.1, "Dropout before the heads.", low=0, high=0.95)
    head_dropout: float = option(
        0.0, "Dropout of what a head's hidden layer reads, and of its units.", low=0, high=0.95
    )
    input_dropout: float = option(
        0.0, "Dropout of embedded tokens, for several epochs of fine-tuning.", low=0, high=0.95
    )
    gradient_clip: float = option(1.0, "Largest gradient norm of a step; 0 sets no limit.", low=0)
    patience: int = option(2, "Epochs without a better validation loss before stopping.", low=1)
    objective: str | None = option(
        None,
        "An objective (see newllm plugins) as one more term; with a weight alone, that of phase 1.",
    )
    objective_weight: float | None = option(
        None, "λ of the objective; 1 if only the objective is named.", low=0
    )
    reg: str | None = option(
        None, "A regularizer as one more term; with a weight alone, that of phase 1."
    )
    reg_weight: float | None = option(
        None, "Its weight; the regularizer's own if only the regularizer is named.", low=0
    )
    head_weights: tuple[float, ...] = option(
        (0.5, 0.7, 0.8, 0.9, 1.0, 1.2),
        "Loss weights of the heads, first block first; interpolated for other counts.",
        low=0,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.head_weights or not sum(self.head_weights) > 0:
            raise ConfigError("phase2.head_weights needs at least one weight above zero")
