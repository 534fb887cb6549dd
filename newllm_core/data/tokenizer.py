"""`TextTokenizer`: text and chats to token ids and back, re-creatable from its JSON alone.

The JSON is an ordinary `tokenizer.json`; `control_tokens` says where it keeps what newllm added.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from newllm_core.data.control_tokens import (
    HIDDEN,
    add_control_tokens,
    hide_special_tokens,
    read_control_tokens,
    unknown_token,
)
from newllm_core.data.measures import contents
from newllm_core.data.pieces import HarmlessCuts, cut_at_words, in_batches
from newllm_core.data.sources.base import Document
from newllm_core.data.token_text import LETTERS, TokenText
from newllm_core.data.tokenizer_library import load_tokenizer, panics_contained
from newllm_core.errors import InputError, reason
from newllm_core.files.tensor_files import LARGEST_METADATA

if TYPE_CHECKING:
    import numpy as np

# Pieces are encoded side by side, so many characters of them at a time: an encoding takes about a
# hundred bytes a token.
PIECE_CHARACTERS = 1 << 16
BATCH_CHARACTERS = 1 << 20
# A single word would take any amount of memory.
LONGEST_WORD = 1 << 20
# Tokenizers with rules of their own read texts whole, up to this length.
WHOLE_CHARACTERS = 1 << 22


class TextTokenizer:
    """A tokenizer with a document end token and chat roles.

    Attributes:
        vocab_size: one more than the largest id.
        base_vocab_size: the same without the tokens that newllm added.
        end_id: id of the token that closes a document.
        role_ids: id of the token that opens a message, for each role.
        unknown_id: of the token for whatever the vocabulary lacks; None if there is none.
        is_byte_level: every token stands for bytes, whatever is around it.
        is_cut_at_words: it is a byte-level BPE with GPT-2's rule for words: `cut_at_words` makes no
            difference to ids, and it can be trusted with any text.
        is_lossless: it is one, and knows every byte: its tokens give any text back.
    """

    def __init__(self, text: str) -> None:
        size = len(text.encode("utf-8", "replace"))
        if size > LARGEST_METADATA:  # said before anything is encoded or trained
            raise InputError(
                f"a tokenizer of {size:,} bytes, of which a checkpoint has room for "
                f"{LARGEST_METADATA:,}: use a smaller vocabulary"
            )
        try:
            spec = json.loads(text)
            end, control, self.base_vocab_size = read_control_tokens(spec)
            ids = hide_special_tokens(spec, control)
            if any(ids[HIDDEN + name] != number for name, number in control.items()):
                raise LookupError("its ids are not those that it records")
            self._tokenizer = load_tokenizer(spec, json.dumps(spec))
            self._text_of = TokenText(self._tokenizer, spec)
            self.is_cut_at_words = _is_plain_byte_level(spec)
            is_whole = self.is_cut_at_words and self._text_of.is_byte_level
            self.is_lossless = is_whole and ids.keys() >= set(LETTERS)
            self.unknown_id = ids.get(unknown_token(spec["model"]) or "")
        except Exception as error:  # a description may lack anything
            raise InputError(f"not a tokenizer that newllm wrote: {reason(error)}") from error
        self.is_byte_level = self._text_of.is_byte_level
        self.end_id = control.pop(end)
        self.role_ids = {name[2:-2]: number for name, number in control.items()}
        self.vocab_size = len(self._text_of.spellings)
        self._text = text

    @classmethod
    def from_json(cls, text: str) -> "TextTokenizer":
        """Return the tokenizer that `to_json` described; `InputError` if it is none."""
        return cls(text)

    @classmethod
    def adopt(cls, text: str, roles: Iterable[str] = ()) -> "TextTokenizer":
        """Make one of any `tokenizer.json`: end token and roles are added where it has none.

        `InputError` if it cannot be read, or its ids leave no room for more tokens.
        """
        return cls(add_control_tokens(text, sorted(set(roles))))

    def to_json(self) -> str:
        """Return the description that `from_json` reads."""
        return self._text

    def encode(self, text: str) -> list[int]:
        """Return ids of a text alone: no control tokens."""
        return self._encode_texts([text])[0].tolist()

    def encode_documents(self, documents: Sequence[Document]) -> "list[np.ndarray]":
        """Return ids of whole documents or parts of them, in one go for speed.

        A text is its ids and, unless it continues, the end token; a chat is, per message, the
        role's token and the ids of the content, and then the end token; a document of token ids is
        taken as it is, with `InputError` for an id outside the vocabulary.
        """
        import numpy as np

        encoded = iter(self._encode_texts([text for d in documents for text in contents(d)]))
        end = _array([self.end_id])
        result = []
        for document in documents:
            if document.tokens is not None:
                largest = max(document.tokens, default=0)
                if largest >= self.vocab_size:
                    raise InputError(
                        f"token id {largest} is not in the tokenizer's vocabulary "
                        f"(ids 0 to {self.vocab_size - 1})"
                    )
                result.append(_array(document.tokens))
            elif document.messages is not None:
                parts = []
                for message in document.messages:
                    parts += [_array([self.role_ids[message.role]]), next(encoded)]
                result.append(np.concatenate([*parts, end]))
            else:
                ids = next(encoded)
                result.append(ids if document.continues else np.concatenate([ids, end]))
        return result

    def encodings(self, text: str) -> "Iterator[tuple[np.ndarray, list[tuple[int, int]]]]":
        """Yield piece by piece the ids of a text, and for each the characters `[start, end)`."""
        start = 0
        for piece in self._pieces(text):
            with panics_contained(self.is_cut_at_words):
                encoding = self._tokenizer.encode(piece, add_special_tokens=False)
            offsets = [(start + first, start + last) for first, last in encoding.offsets]
            yield _array(encoding.ids), offsets
            start += len(piece)

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of `ids`; control tokens and unknown ones have none."""
        with panics_contained(self.is_cut_at_words):
            return self._text_of.decode(ids)

    def spelling(self, token: int) -> str | None:
        """Return how the vocabulary writes a token; None for one that has no text."""
        return self._text_of.spellings[token]

    def bytes_of(self, token: int) -> bytes | None:
        """Return the bytes that a token stands for; None if it stands for text."""
        return self._text_of.bytes_of(token)

    def is_control(self, token: int) -> bool:
        """Say whether a token opens a message or closes a document."""
        return token == self.end_id or token in self.role_ids.values()

    def _encode_texts(self, texts: Sequence[str]) -> "list[np.ndarray]":
        import numpy as np

        parts = [[_array(())] for _ in texts]
        pieces = (
            (index, piece) for index, text in enumerate(texts) for piece in self._pieces(text)
        )
        for batch in in_batches(pieces, lambda pair: len(pair[1]), BATCH_CHARACTERS):
            with panics_contained(self.is_cut_at_words):
                encodings = self._tokenizer.encode_batch_fast(
                    [piece for _, piece in batch], add_special_tokens=False
                )
            for (index, _), encoding in zip(batch, encodings, strict=True):
                parts[index].append(_array(encoding.ids))
        return [np.concatenate(part) for part in parts]

    def pieces(self, chunks: Iterable[str], characters: int = PIECE_CHARACTERS) -> Iterator[str]:
        """Cut the text that comes in `chunks` into pieces whose ids together are those of all.

        Pieces but the last have at least so many `characters`, and begin with white space.
        """
        if self.is_cut_at_words:
            return cut_at_words(chunks, max(1, characters), LONGEST_WORD)
        return HarmlessCuts(self.encode, characters).pieces(chunks)

    def _pieces(self, text: str) -> Iterator[str]:
        whole = PIECE_CHARACTERS if self.is_cut_at_words else WHOLE_CHARACTERS
        return self.pieces((text,), whole)


def _array(ids: Sequence[int]) -> "np.ndarray":
    import numpy as np

    return np.array(ids, dtype=np.uint32)


def _is_plain_byte_level(spec: dict[str, Any]) -> bool:
    """Say whether `cut_at_words` changes no ids: GPT-2's rule for words, on the text as it is."""
    splitter = spec.get("pre_tokenizer") or {}
    return (
        spec["model"]["type"] == "BPE"
        and spec.get("normalizer") is None
        and splitter.get("type") == "ByteLevel"
        and splitter.get("use_regex", True)
        and not splitter.get("add_prefix_space")
        # These are found in a text before words are, and may hold white space.
        and not spec["added_tokens"]
    )
