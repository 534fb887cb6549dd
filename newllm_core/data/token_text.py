"""What tokens say: as the `tokenizers` library decodes them, but for what it garbles.

To a byte-level decoder an added word is letters of bytes, and `café` is no UTF-8; one stray byte
spoils all bytes beside it where bytes are a fallback. Both are put right before it decodes.
"""

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

from newllm_core.data.control_tokens import BYTE_NAMES, HIDDEN
from newllm_core.data.tokenizer_library import rules

if TYPE_CHECKING:
    from tokenizers import Tokenizer


class TokenText:
    """Decodes ids of `tokenizer`, which the library made of the parsed `tokenizer.json` `spec`.

    Hidden tokens, and ids without a token, have no text.

    Attributes:
        is_byte_level: every token stands for bytes, whatever is around it.
        spellings: how the vocabulary writes each id; None for what has no text.
    """

    def __init__(self, tokenizer: "Tokenizer", spec: dict[str, Any]) -> None:
        found = rules(spec.get("decoder"))
        self.is_byte_level = (spec.get("decoder") or {}).get("type") == "ByteLevel"
        self._decoder = tokenizer.decoder
        self._letters = "ByteLevel" in found
        self._fallback = BYTE_NAMES if "ByteFallback" in found else {}
        vocabulary = tokenizer.get_vocab(with_added_tokens=True)
        self.spellings: list[str | None] = [None] * (max(vocabulary.values(), default=-1) + 1)
        for name, number in vocabulary.items():
            if not name.startswith(HIDDEN):
                self.spellings[number] = name
        self._written = list(self.spellings)
        for token in spec["added_tokens"]:
            number, word = vocabulary[token["content"]], token["content"]
            # As a normalizer makes them.
            self.spellings[number] = self._written[number] = tokenizer.id_to_token(number)
            if self._letters:
                self._written[number] = "".join(LETTERS[byte] for byte in word.encode("utf-8"))
            # With marks for spaces where the decoder takes them for that, not in other letters.
            elif self.decode([number]).strip() != word:
                self._written[number] = word

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of `ids`."""
        written = [name for number in ids if (name := self._written[number]) is not None]
        if self._fallback:
            written = list(self._joined(written))
        return " ".join(written) if self._decoder is None else self._decoder.decode(written)

    def bytes_of(self, token: int) -> bytes | None:
        """Return what a token that stands for bytes stands for; None if it stands for text.

        A character may be spread over several tokens. A token without text has no bytes.
        """
        name = self._written[token]
        if self._letters:
            try:
                return bytes([_BYTES[letter] for letter in name or ""])
            except KeyError:  # it is not written in letters of bytes
                return (name or "").encode("utf-8")
        return bytes([self._fallback[name]]) if name in self._fallback else None

    def _joined(self, written: Sequence[str]) -> Iterator[str]:
        """Yield text for the bytes that are beside each other, and everything else as it is."""
        for are_bytes, names in groupby(written, self._fallback.__contains__):
            if are_bytes:
                yield bytes(self._fallback[name] for name in names).decode("utf-8", "replace")
            else:
                yield from names


def _byte_letters() -> list[str]:
    """Return the letter of each byte in a byte-level vocabulary (Radford et al. 2019)."""
    printable = {*range(33, 127), *range(161, 173), *range(174, 256)}
    others = iter(range(256, 512))
    return [chr(byte if byte in printable else next(others)) for byte in range(256)]


LETTERS = _byte_letters()
_BYTES = {letter: byte for byte, letter in enumerate(LETTERS)}
