"""Every hyperparameter: its type, only default, help text and bounds. Standard library only.

A section is a frozen dataclass; `Config` holds one of each. Command-line flags, TOML keys,
environment variables, `--help` and the config saved in a checkpoint all derive from the fields
here. Values are checked when a section is made.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar

from newllm_core.errors import ConfigError
from newllm_core.files.escapes import unescape

MOST_LAYERS = 1000
WIDEST = 1 << 20


def option(
    default: Any,  # noqa: ANN401 - the field's own annotation says the type
    help: str,
    *,
    low: float | None = None,
    high: float | None = None,
    choices: tuple[str, ...] = (),
    flag: str | None = None,
) -> Any:  # noqa: ANN401
    """A dataclass field with its documentation and bounds (inclusive).

    Args:
        default: the only place where this default is written.
        help: one sentence for `--help` and the documentation.
        low: smallest value allowed.
        high: largest value allowed.
        choices: the values allowed, where they are a closed set.
        flag: the command-line name where it differs from the field's.
    """
    metadata = {"help": help, "low": low, "high": high, "choices": choices, "flag": flag}
    return field(default=default, metadata=metadata)


def check_bounds(section: Any, name: str) -> None:  # noqa: ANN401 - any dataclass made of `option`s
    """Raise `ConfigError` for the first field of `section` outside its bounds or choices."""
    for spec in fields(section):
        value = getattr(section, spec.name)
        low, high = spec.metadata.get("low"), spec.metadata.get("high")
        choices = spec.metadata.get("choices")
        if choices and value not in choices:
            raise ConfigError(
                f"{name}.{spec.name} is {value!r}: choose one of {', '.join(choices)}"
            )
        for number in value if isinstance(value, tuple) else (value,):
            if isinstance(number, int | float) and not isinstance(number, bool):
                if not (number == number and abs(number) != float("inf")):
                    raise ConfigError(f"{name}.{spec.name} is {number}: it must be finite")
                if low is not None and number < low:
                    raise ConfigError(f"{name}.{spec.name} is {number}: at least {low:g}")
                if high is not None and number > high:
                    raise ConfigError(f"{name}.{spec.name} is {number}: at most {high:g}")


class _Section:
    SECTION = ""

    def __post_init__(self) -> None:
        check_bounds(self, self.SECTION)


@dataclass(frozen=True)
class DataConfig(_Section):
    """What `prepare` reads and how it turns text into tokens."""

    SECTION = "data"

    source: str = option("python-docs", "Data source (an entry point of newllm.data_sources).")
    input: str | None = option(None, "File or folder the source reads; sources say what they take.")
    val_source: str | None = option(None, "Data source of the validation set, if a separate one.")
    val_input: str | None = option(None, "File or folder of the validation set, if a separate one.")
    val_fraction: float = option(
        0.05, "Share of bytes held out when there is no separate validation set.", low=0, high=0.9
    )
    val_token_policy: str = option(
        "drop",
        "Lines of validation text with a token type that training never saw.",
        choices=("drop", "keep"),
    )
    tokenizer: str = option(
        "bpe",
        "bpe (trained on the training split), gpt2 (from --tokenizer-path or the hub), or a file "
        "tokenizer.json.",
    )
    tokenizer_path: str | None = option(
        None, "Folder or file of the gpt2 tokenizer: vocab.json + merges.txt, or tokenizer.json."
    )
    vocab_size: int = option(8192, "Vocabulary of the trained bpe.", low=258, high=1_000_000)
    tokenizer_bytes: int = option(
        16_000_000,
        "Bytes of training text the bpe is trained on at most, taken evenly from all of it.",
        low=1,
    )
    max_documents: int | None = option(None, "Read at most so many documents.", low=2)
    max_broken_share: float = option(
        0.01,
        "Largest share of rows that may be damaged; they are left out and reported.",
        low=0,
        high=1,
    )


@dataclass(frozen=True)
class ModelConfig(_Section):
    """Shape and initialisation of the recurrence."""

    SECTION = "model"
    SHORTHANDS: ClassVar[dict[str, str]] = {"num_layers": "layer_structure"}

    context_dim: int = option(
        256, "Dimensions of the context, the whole memory.", low=1, high=WIDEST
    )
    embed_dim: int = option(256, "Dimensions of a token embedding.", low=1, high=WIDEST)
    hidden_dim: int | None = option(
        None,
        "Hidden units of an update; context_dim + embed_dim means one matrix.",
        low=1,
        high=WIDEST,
    )
    layer_structure: tuple[int, ...] = option(
        (1, 1), "Layers in each block: 2,3 is a block of two and a block of three.", low=1
    )
    update: str = option(
        "residual",
        "How a layer updates; mogrifier is a GRU whose token and context gate each other first.",
        choices=("residual", "gated", "mogrifier"),
    )
    mogrifier_rounds: int = option(1, "Rounds of that mutual gating.", low=0, high=MOST_LAYERS)
    layernorm_mix: float = option(
        1.0, "Share of LayerNorm after a layer; at 0 long texts explode.", low=0, high=1
    )
    init_std: float = option(
        0.1, "Scale of initial weights: small is long memory, large is chaos.", low=0
    )
    embeddings: str = option(
        "random", "random, or FILE.safetensors[:TENSOR] (pretrained, always frozen)."
    )
    tie_weights: bool = option(
        False,
        "Share the embedding matrix with the token head, through a projection of the context.",
    )
    decoder: str = option(
        "mlp",
        "What reconstructs [c_{t-1} ; x_t] from c_t: mlp (with one hidden layer), or linear.",
        choices=("mlp", "linear"),
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.layer_structure:
            raise ConfigError("model.layer_structure is empty: give at least one block, e.g. 1,1")
        if self.update == "mogrifier" and self.hidden_dim not in (
            None,
            self.context_dim + self.embed_dim,
        ):
            raise ConfigError("model.update = mogrifier has no hidden units: leave out hidden_dim")
        if sum(self.layer_structure) > MOST_LAYERS:
            raise ConfigError(f"model.layer_structure has more than {MOST_LAYERS:,} layers")

    @property
    def num_blocks(self) -> int:
        """Blocks in sequence; the model returns the context after each."""
        return len(self.layer_structure)


@dataclass(frozen=True)
class Phase1Config(_Section):
    """How the update is trained to settle and to stay diverse."""

    SECTION = "phase1"

    reg: str = option("covariance-ema", "Regularizer (an entry point of newllm.regularizers).")
    dist_reg_weight: float | None = option(
        None,
        "w in loss = (1-w) objective + w regularizer; none takes the regularizer's own default.",
        low=0,
        high=1,
    )
    apply_to: str = option(
        "final", "Which contexts are regularized.", choices=("final", "every-layer")
    )
    objective: str = option(
        "auto",
        "cvfp: contexts repeat themselves; reconstruction: contexts give back their inputs; auto: "
        "reconstruction, or cvfp with --start zero, as published.",
        choices=("auto", "cvfp", "reconstruction"),
    )
    context_weight: float = option(
        0.7,
        "Weight of c_{t-1} in the reconstruction, where x_t has 1: more remembers longer.",
        low=0,
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
    min_iterations: int = option(5, "Iterations before early stopping may happen.", low=1)
    batch_tokens: int = option(
        384,
        "Tokens per optimizer step (parallel engine); 1/32 of a smaller window, but 256 at least.",
        low=1,
    )
    num_streams: int = option(64, "Streams in lock-step (streams engine).", low=1)
    chunk_steps: int = option(64, "Steps of every stream per optimizer step (streams).", low=1)
    lr_schedule: str = option(
        "staged", "staged by iteration, or constant.", choices=("staged", "constant")
    )
    learning_rate: float = option(0.002, "Warm-up stage (iterations 1-3), or constant.", low=0)
    medium_learning_rate: float = option(0.0005, "Medium stage (iterations 4-8).", low=0)
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
    min_converged_ratio: float = option(
        0.99, "Stop a window early once this share has converged.", low=0, high=1
    )


@dataclass(frozen=True)
class Phase2Config(_Section):
    """How token heads (and, unless frozen, the blocks) are trained."""

    SECTION = "phase2"

    epochs: int = option(3, "Passes over the training tokens.", low=0)
    max_tokens: int | None = option(None, "Use at most so many training tokens.", low=2)
    freeze_context: bool = option(False, "Train heads only, on contexts computed once.")
    train_embeddings: bool = option(True, "Train random embeddings too (pretrained never are).")
    bptt: int = option(16, "Tokens of back-propagation through time.", low=1)
    num_streams: int = option(64, "Training streams in lock-step.", low=1)
    batch_tokens: int = option(2048, "Contexts per step with --freeze-context.", low=1)
    learning_rate: float = option(0.003, "Peak of the one-cycle schedule.", low=0)
    warmup_fraction: float = option(0.1, "Share of steps that warm up.", low=0, high=1)
    weight_decay: float = option(0.01, "AdamW decay of matrices.", low=0)
    dropout: float = option(0.1, "Dropout before the heads.", low=0, high=0.95)
    input_dropout: float = option(
        0.0, "Dropout of embedded tokens, for several epochs of fine-tuning.", low=0, high=0.95
    )
    gradient_clip: float = option(1.0, "Largest gradient norm of a step; 0 sets no limit.", low=0)
    patience: int = option(2, "Epochs without a better validation loss before stopping.", low=1)
    reconstruction_weight: float = option(0.0, "λ of the reconstruction term.", low=0)
    head_weights: tuple[float, ...] = option(
        (0.5, 0.7, 0.8, 0.9, 1.0, 1.2),
        "Loss weights of the heads, first block first; interpolated for other counts.",
        low=0,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.head_weights or not sum(self.head_weights) > 0:
            raise ConfigError("phase2.head_weights needs at least one weight above zero")


@dataclass(frozen=True)
class GateConfig(_Section):
    """What contexts must be before heads are trained on them."""

    SECTION = "gate"

    min_train_rank: float = option(0.20, "Least ER/D of training contexts.", low=0, high=1)
    min_val_rank: float = option(0.08, "Least ER/D of validation contexts.", low=0, high=1)
    max_mean_cosine: float = option(
        0.95, "Above this mean pairwise cosine: a global attractor.", low=0, high=1
    )
    min_norm: float = option(
        0.1, "Below this mean norm (as a share of the square root of D): a zero solution.", low=0
    )


@dataclass(frozen=True)
class AnalysisConfig(_Section):
    """How much `analyze` looks at. Thresholds of verdicts: `newllm_core.analysis.thresholds`."""

    SECTION = "analysis"

    probe_tokens: int = option(16_384, "Contexts per split, kept as token ids.", low=2)
    probe_passages: int = option(32, "Passages the probe tokens are spread over.", low=1)
    warmup_tokens: int = option(64, "Tokens read before a passage counts.", low=0)
    num_pairs: int = option(20_000, "Sampled pairs for pairwise figures.", low=2)
    dynamics_passages: int = option(
        16, "Passages of a split on which dynamics are measured.", low=1
    )
    dynamics_steps: int = option(
        256, "Tokens of each such passage; sweeps are counted up to here.", low=1
    )
    memory_lags: int = option(32, "How many tokens back memory is looked for.", low=1)
    num_singular_vectors: int = option(5, "Top singular vectors shown with their tokens.", low=1)


@dataclass(frozen=True)
class GenerationConfig(_Section):
    """How text is written, token by token."""

    SECTION = "generation"

    max_tokens: int = option(200, "At most so many tokens; with --chat, in each reply.", low=0)
    temperature: float = option(
        0.8, "Divides the logits; 0 always takes the most likely token.", low=0
    )
    top_k: int | None = option(None, "Choose among so many most likely tokens only.", low=1)
    top_p: float = option(
        0.95,
        "Choose among the fewest most likely tokens with this much probability together.",
        low=0,
        high=1,
    )
    stop: tuple[str, ...] = option(
        (), r"The text ends before this string; repeatable (escapes: \n \r \t \\)."
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self.stop_strings()

    def stop_strings(self) -> list[str]:
        """`stop` with its escapes written out.

        Raises:
            ConfigError: one is empty or has an unknown escape.
        """
        return [unescape(text, "generation.stop") for text in self.stop]


@dataclass(frozen=True)
class RunConfig(_Section):
    """What is the same for every command."""

    SECTION = "run"

    seed: int = option(0, "Seed of everything random.", low=0, high=2**32 - 1)
    device: str = option("auto", "Where to compute.", choices=("auto", "cpu", "cuda"))
    threads: int | None = option(None, "Processor threads; all by default.", low=1, high=1024)
    precision: str = option(
        "auto",
        "Matrix products in training and evaluation; auto takes bfloat16 where the hardware makes "
        "it faster.",
        choices=("auto", "float32", "bfloat16"),
    )
    sharding: str = option(
        "none",
        "What processes of torchrun divide: none, each holds the whole model; full, each holds a "
        "share of parameters, gradients and optimizer state.",
        choices=("none", "full"),
    )
    save_interval_seconds: float = option(
        600.0, "Seconds between two saves of the state that --resume continues from.", low=0
    )


@dataclass(frozen=True)
class Config:
    """One of each section. `regularizer` and `source` hold the options of plugins."""

    run: RunConfig = RunConfig()
    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    phase1: Phase1Config = Phase1Config()
    phase2: Phase2Config = Phase2Config()
    gate: GateConfig = GateConfig()
    analysis: AnalysisConfig = AnalysisConfig()
    generation: GenerationConfig = GenerationConfig()
    regularizer: Mapping[str, Any] = field(default_factory=dict)
    source: Mapping[str, Any] = field(default_factory=dict)


PLUGIN_SECTIONS = ("regularizer", "source")
SECTIONS: dict[str, type[Any]] = {
    spec.name: type(spec.default) for spec in fields(Config) if spec.name not in PLUGIN_SECTIONS
}
