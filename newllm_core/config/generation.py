"""How text is written."""

from dataclasses import dataclass

from newllm_core.config.option import Section, option, share
from newllm_core.files.escapes import unescape


@dataclass(frozen=True)
class GenerationConfig(Section, name="generation"):
    """How text is written, token by token."""

    max_tokens: int = option(200, "At most so many tokens; with --chat, in each reply.", low=0)
    temperature: float = option(
        0.8, "Divides the logits; 0 always takes the most likely token.", low=0
    )
    top_k: int | None = option(None, "Choose among so many most likely tokens only.", low=1)
    top_p: float = share(
        0.95, "Choose among the fewest most likely tokens with this much probability together."
    )
    repetition_penalty: float = option(
        1.0,
        "Divides the logits of tokens that came lately, if positive, and multiplies them if not "
        "(Keskar et al. 2019); 1 changes nothing.",
        low=0.01,
        high=100,
    )
    penalty_tokens: int = option(64, "How many tokens back that is, prompt included.", low=0)
    stop: tuple[str, ...] = option(
        (), r"The text ends before this string; repeatable (escapes: \n \r \t \\)."
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self.stop_strings()

    def stop_strings(self) -> list[str]:
        """Return `stop` with its escapes written out.

        Raises:
            ConfigError: one is empty or has an unknown escape.
        """
        return [unescape(text, "generation.stop") for text in self.stop]
