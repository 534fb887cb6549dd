"""Token ids as people read them."""

import json

from newllm_core.data.tokenizer_library import load_tokenizer, panics_contained
from newllm_core.errors import InputError, reason


class TokenText:
    """Decodes single tokens.

    Args:
        tokenizer_json: as the `tokenizers` library writes it; empty if there is none.

    Raises:
        InputError: it is not such a description.
    """

    def __init__(self, tokenizer_json: str) -> None:
        self._tokenizer = None
        try:
            if tokenizer_json:
                self._tokenizer = load_tokenizer(json.loads(tokenizer_json), tokenizer_json)
        except Exception as error:  # tokenizers raises bare Exception
            raise InputError(
                f"the checkpoint's tokenizer cannot be read: {reason(error)}"
            ) from error

    def __call__(self, token: int) -> str:
        """Return the text of a token, its raw form if it is not whole text, or #id without any."""
        if self._tokenizer is None or (raw := self._tokenizer.id_to_token(token)) is None:
            return f"#{token}"
        with panics_contained():
            text = self._tokenizer.decode([token], skip_special_tokens=False)
        # A token may hold part of a character; a replacement sign would say nothing about it.
        return text if text and "\ufffd" not in text else raw
