"""Shape and initialisation of the recurrence."""

import math
from dataclasses import dataclass
from typing import ClassVar

from newllm_core.config.option import Section, option
from newllm_core.errors import ConfigError

MOST_LAYERS = 1000
WIDEST = 1 << 20
MOST_BIGRAMS = 1 << 24


@dataclass(frozen=True)
class ModelConfig(Section, name="model"):
    """Shape and initialisation of the recurrence."""

    SHORTHANDS: ClassVar[dict[str, str]] = {"num_layers": "layer_structure"}

    context_dim: int = option(
        256, "Dimensions of the context, the whole memory.", low=1, high=WIDEST
    )
    slow_dims: int = option(
        0,
        "Dimensions of the context that are not trained: averages of the tokens read that fade "
        "slowly, counted from the training text.",
        low=0,
        high=WIDEST,
    )
    slow_decays: tuple[float, ...] = option(
        (0.8, 0.95),
        "What is left after each token of the averages in slow_dims: parts of them, as equal as "
        "can be, fade at each rate.",
        low=0,
        high=0.9999,
    )
    delay_dims: int = option(
        0,
        "Dimensions of the context that are not trained: they hold the last delay_tokens tokens "
        "in order, as many numbers of each, counted from the training text.",
        low=0,
        high=WIDEST,
    )
    delay_tokens: int = option(8, "How many tokens delay_dims hold.", low=1, high=WIDEST)
    embed_dim: int = option(256, "Dimensions of a token embedding.", low=1, high=WIDEST)
    cell: str = option("residual", "The update rule, see newllm plugins.")
    layer_structure: tuple[int, ...] = option(
        (1, 1), "Layers in each block: 2,3 is a block of two and a block of three.", low=1
    )
    init_std: float = option(
        0.1, "Scale of initial weights: small is long memory, large is chaos.", low=0
    )
    embeddings: str = option(
        "random",
        "random; counts: vectors counted from the training text; or FILE.safetensors[:TENSOR] "
        "(pretrained, always frozen).",
    )
    tie_weights: bool = option(
        False,
        "Share the embedding matrix with the token head, through a projection of the context.",
    )
    head_hidden: int = option(
        0, "Hidden units of a token head; 0 reads contexts linearly.", low=0, high=WIDEST
    )
    head_reads_token: bool = option(
        False, "Let every head read the last token too, from a table of its own beside the context."
    )
    head_bigrams: int = option(
        0,
        "Mix every head with how often tokens follow the last one, so many pairs at most; 0 for no "
        "such counts.",
        low=0,
        high=MOST_BIGRAMS,
    )
    counted_tokens: int | None = option(
        None,
        "Count embeddings, dimensions and bigrams in at most so many training tokens.",
        low=2,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.layer_structure:
            raise ConfigError("model.layer_structure is empty: give at least one block, e.g. 1,1")
        if sum(self.layer_structure) > MOST_LAYERS:
            raise ConfigError(f"model.layer_structure has more than {MOST_LAYERS:,} layers")
        if not self.slow_decays:
            raise ConfigError("model.slow_decays is empty: give at least one, e.g. 0.8,0.95")

    @property
    def learned_dims(self) -> int:
        """Count the dimensions of the context that the update makes, the first ones."""
        return self.context_dim - self.memory_dims

    @property
    def memory_dims(self) -> int:
        """Count the dimensions of the context that are not learned, the last ones."""
        return self.slow_dims + self.delay_dims

    @property
    def memory_span(self) -> int:
        """Return after how many tokens at most a hundredth is left of what slow_dims held."""
        fading = [decay for decay in self.slow_decays if decay > 0] if self.slow_dims else []
        spans = [math.ceil(math.log(0.01) / math.log(decay)) for decay in fading]
        return max([self.delay_span, *spans])

    @property
    def delay_span(self) -> int:
        """Return after how many tokens delay_dims have lost a token altogether."""
        return self.delay_tokens if self.delay_dims else 0

    @property
    def delay_numbers(self) -> int:
        """Count the numbers of each token that a delay line holds."""
        return self.delay_dims // self.delay_tokens

    @property
    def embeddings_file(self) -> str | None:
        """Return where pretrained embeddings come from, if they do."""
        return None if self.embeddings in ("random", "counts") else self.embeddings

    @property
    def num_blocks(self) -> int:
        """Return blocks in sequence; the model returns the context after each."""
        return len(self.layer_structure)

    def require_dims(self) -> None:
        """Raise `ConfigError` unless a context has room for its parts, and a token enough for them.

        Not where sections are made: a key may be replaced before another one is.
        """
        of_token = max(self.slow_dims, self.delay_numbers)
        if of_token > self.embed_dim:
            raise ConfigError(
                f"model.slow_dims and delay_dims take {of_token} of a token, and model.embed_dim "
                f"({self.embed_dim}) is all there is of one"
            )
        if self.delay_dims % self.delay_tokens:
            raise ConfigError(
                f"model.delay_dims is {self.delay_dims}: it must be a multiple of "
                f"model.delay_tokens ({self.delay_tokens})"
            )
        if self.learned_dims < 1:
            raise ConfigError(
                f"model.slow_dims and delay_dims are {self.slow_dims} and {self.delay_dims}: "
                f"together they must be less than model.context_dim ({self.context_dim})"
            )
