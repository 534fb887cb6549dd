"""How much one server takes on."""

from dataclasses import dataclass

from newllm_core.config import option
from newllm_core.config.option import Section


@dataclass(frozen=True)
class Limits(Section, name="limits"):
    """How much one server takes on; more is refused, and says so."""

    body_bytes: int = option(1 << 16, "Of a request, which holds the prompt.", low=1)
    tokens: int = option(4096, "That one request may ask for.", low=1)
    texts: int = option(256, "Under way at the same time.", low=1)
    seconds: float = option(120.0, "From a request to the end of its reply.", low=0.001)
    sessions: int = option(10_000, "Kept; the one unused for longest goes first.", low=1)
    session_id: int = option(200, "Characters of the name of a session.", low=1)
    stop_strings: int = option(4, "In one request.", low=1)
    choices: int = option(16, "Texts of one request: prompts times n.", low=1)
