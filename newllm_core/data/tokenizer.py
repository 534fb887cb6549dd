"""`TextTokenizer`: text and chats to token ids and back, re-creatable from its JSON alone.

The JSON is an ordinary `tokenizer.json`. What newllm adds to a tokenizer is written in its
post-processor, which is the usual place for control tokens: the document end token closes the
template, and chat roles are its further special tokens. Encoding never runs the post-processor.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from newllm_core.data.measures import count_bytes
from newllm_core.data.sources.base import Document, Message
from newllm_core.data.sources.files import reason
from newllm_core.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from tokenizers import Tokenizer

    Ids = np.ndarray[Any, np.dtype[np.uint32]]

END_TOKENS = ("<|endoftext|>", "</s>", "[SEP]")
PIECE_CHARACTERS = 1 << 20
_BASE = "newllm:base_vocab_size"  # a special token of no template: carries a number
_CUT = re.compile(r"(?<=\S\n)(?=\S)")


class TextTokenizer:
    """A tokenizer with a document end token and chat roles.

    Attributes:
        vocab_size: one more than the largest id.
        base_vocab_size: the same without the tokens that newllm added.
        end_id: id of the token that closes a document.
        role_ids: id of the token that opens a message, for each role.
    """

    def __init__(self, text: str, *, piece_characters: int = PIECE_CHARACTERS) -> None:
        from tokenizers import Tokenizer

        try:
            spec = json.loads(text)
            template, special = (
                spec["post_processor"][key] for key in ("single", "special_tokens")
            )
            end = template[-1]["SpecialToken"]["id"]
            ids = {name: entry["ids"][0] for name, entry in special.items()}
            self.base_vocab_size: int = ids.pop(_BASE)
            self.end_id: int = ids.pop(end)
            self.role_ids: dict[str, int] = {name[2:-2]: number for name, number in ids.items()}
            self._tokenizer = Tokenizer.from_str(text)
        except Exception as error:  # tokenizers raises bare Exception
            raise InputError(f"this is no tokenizer that newllm wrote: {reason(error)}") from error
        # What looks like a control token in a text is text; this setting is not in the JSON.
        self._tokenizer.encode_special_tokens = True
        self._text = text
        self._piece_characters = piece_characters
        self._cuttable = _is_plain_byte_level(spec)
        self._literals = None if spec["model"]["type"] == "BPE" else _literals(end, *ids)
        self.vocab_size = id_limit(self._tokenizer)

    @classmethod
    def from_json(cls, text: str) -> "TextTokenizer":
        """The tokenizer that `to_json` described.

        Raises:
            InputError: it is not such a description.
        """
        return cls(text)

    @classmethod
    def adopt(cls, text: str, roles: Iterable[str] = ()) -> "TextTokenizer":
        """Make one of any `tokenizer.json`: end token and roles are added where it has none.

        Raises:
            InputError: it cannot be read, or its ids leave no room for more tokens.
        """
        return cls(_with_control_tokens(text, sorted(set(roles))))

    def to_json(self) -> str:
        """The description that `from_json` reads."""
        return self._text

    def encode(self, text: str) -> list[int]:
        """Ids of a text alone: no control tokens."""
        return self._encode_texts([text])[0].tolist()

    def encode_document(self, document: Document) -> list[int]:
        """Ids of a whole document, see `encode_documents`."""
        return self.encode_documents([document])[0].tolist()

    def encode_documents(
        self, documents: Sequence[Document], advance: Callable[[int], None] = lambda size: None
    ) -> "list[Ids]":
        """Ids of whole documents, in one go for speed.

        A text is its ids and the end token; a chat is, per message, the role's token and the ids
        of the content, and then the end token; a document of token ids is taken as it is.

        Args:
            documents: any mixture of kinds.
            advance: told the UTF-8 bytes that were just encoded, or ids taken over.

        Raises:
            InputError: a token id is outside the vocabulary.
        """
        import numpy as np

        texts: list[str] = []
        for document in documents:
            if document.messages is not None:
                texts += [message.content for message in document.messages]
            elif document.text is not None:
                texts.append(document.text)
        encoded = iter(self._encode_texts(texts, advance))
        end = np.array([self.end_id], dtype=np.uint32)
        result = []
        for document in documents:
            if document.tokens is not None:
                result.append(self._checked(document.tokens))
                advance(len(document.tokens))
            elif document.messages is not None:
                parts = [
                    part
                    for message in document.messages
                    for part in (self._role(message), next(encoded))
                ]
                result.append(np.concatenate([*parts, end]))
            else:
                result.append(np.concatenate([next(encoded), end]))
        return result

    def encode_with_offsets(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """Ids of a text, and for each the characters `[start, end)` it stands for."""
        ids: list[int] = []
        offsets: list[tuple[int, int]] = []
        start = 0
        for piece in self._pieces(text):
            encoding = self._tokenizer.encode(piece, add_special_tokens=False)
            ids += encoding.ids
            offsets += [(start + first, start + last) for first, last in encoding.offsets]
            start += len(piece)
        return ids, offsets

    def decode(self, ids: Sequence[int], *, keep_control: bool = False) -> str:
        """Text of `ids`; control tokens are left out unless `keep_control`."""
        return self._tokenizer.decode(list(ids), skip_special_tokens=not keep_control)

    def token(self, number: int) -> str:
        """How token `number` is written in the vocabulary; "" for an id without a token."""
        return self._tokenizer.id_to_token(number) or ""

    def _role(self, message: Message) -> "Ids":
        import numpy as np

        return np.array([self.role_ids[message.role]], dtype=np.uint32)

    def _checked(self, tokens: tuple[int, ...]) -> "Ids":
        import numpy as np

        largest = max(tokens, default=0)
        if largest >= self.vocab_size:
            raise InputError(
                f"token id {largest} is not in the tokenizer's vocabulary "
                f"(ids 0 to {self.vocab_size - 1})"
            )
        return np.array(tokens, dtype=np.uint32)

    def _encode_texts(
        self, texts: Sequence[str], advance: Callable[[int], None] = lambda size: None
    ) -> "list[Ids]":
        import numpy as np

        parts: list[list[Ids]] = [[] for _ in texts]
        waiting: list[tuple[int, str]] = []
        size = 0
        pieces = ((index, part) for index, text in enumerate(texts) for part in self._pieces(text))
        for index, piece in pieces:
            waiting.append((index, piece))
            size += len(piece)
            # An encoding takes about a hundred bytes a token, so few are alive at a time.
            if size >= self._piece_characters:
                self._encode_pieces(waiting, parts, advance)
                waiting, size = [], 0
        self._encode_pieces(waiting, parts, advance)
        nothing = np.empty(0, dtype=np.uint32)
        return [np.concatenate(part) if part else nothing for part in parts]

    def _encode_pieces(
        self,
        waiting: list[tuple[int, str]],
        parts: "list[list[Ids]]",
        advance: Callable[[int], None],
    ) -> None:
        import numpy as np

        texts = [piece for _, piece in waiting]
        encodings = self._tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        for (index, _), encoding in zip(waiting, encodings, strict=True):
            parts[index].append(np.array(encoding.ids, dtype=np.uint32))
        advance(sum(map(count_bytes, texts)))

    def _pieces(self, text: str) -> Iterator[str]:
        """Parts of a text to encode one by one; together they give the ids of the whole."""
        start = 0
        if self._literals is not None:
            # Such a model finds a control token that is written out in a text: cut it in two.
            for match in self._literals.finditer(text):
                yield text[start : match.start() + 1]
                start = match.start() + 1
        if self._cuttable:
            yield from cut_at_lines(text, self._piece_characters)
        elif start < len(text):
            yield text[start:]


def cut_at_lines(text: str, characters: int) -> Iterator[str]:
    """Cut a long text where a byte-level BPE never has a token across: it trains and encodes alike.

    Such a place is after a line feed between two visible characters; parts are at least
    `characters` long but the last, and longer where there is no such place.
    """
    start = 0
    while len(text) - start > characters:
        cut = _CUT.search(text, start + characters)
        if cut is None:
            break
        yield text[start : cut.start()]
        start = cut.start()
    if start < len(text):
        yield text[start:]


def id_limit(tokenizer: "Tokenizer") -> int:
    """One more than the largest id: a vocabulary may have gaps."""
    return max(tokenizer.get_vocab(with_added_tokens=True).values(), default=-1) + 1


def _is_plain_byte_level(spec: dict[str, Any]) -> bool:
    """Whether a line feed between two visible characters is always a token boundary."""
    splitter = spec["pre_tokenizer"] or {}
    plain = splitter.get("use_regex", True) and not splitter.get("add_prefix_space")
    return splitter.get("type") == "ByteLevel" and plain and spec["normalizer"] is None


def _literals(*control: str) -> re.Pattern[str]:
    return re.compile("|".join(re.escape(name) for name in control if len(name) > 1))


def _with_control_tokens(text: str, roles: list[str]) -> str:
    from tokenizers import Tokenizer

    try:
        spec = json.loads(text)
        # Texts are never cut or padded, and its own template is not ours.
        spec.update(truncation=None, padding=None, post_processor=None)
        tokenizer = Tokenizer.from_str(json.dumps(spec))
    except Exception as error:  # tokenizers raises bare Exception
        raise InputError(f"not a tokenizer.json: {reason(error)}") from error
    base = id_limit(tokenizer)
    found = (name for name in END_TOKENS if tokenizer.token_to_id(name) is not None)
    end = next(found, END_TOKENS[0])
    control = [end, *(f"<|{role}|>" for role in roles)]
    if len(set(control)) != len(control):
        raise InputError(f"chats have the role {end[2:-2]!r}, which is the document end token")
    tokenizer.add_special_tokens(control)
    vocabulary = tokenizer.get_vocab(with_added_tokens=True)
    if len(set(vocabulary.values())) != len(vocabulary):
        raise InputError("the tokenizer's ids have gaps: tokens cannot be added to it")
    spec = json.loads(tokenizer.to_str())
    for added in spec["added_tokens"]:
        added["special"] = added["special"] or added["content"] in control
    ids = {**{name: vocabulary[name] for name in control}, _BASE: base}
    end_piece = {"SpecialToken": {"id": end, "type_id": 0}}
    first, second = ({"Sequence": {"id": name, "type_id": 0}} for name in "AB")
    spec["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [first, end_piece],
        "pair": [first, second, end_piece],
        "special_tokens": {
            name: {"id": name, "ids": [number], "tokens": [name]} for name, number in ids.items()
        },
    }
    return json.dumps(spec, ensure_ascii=False)
