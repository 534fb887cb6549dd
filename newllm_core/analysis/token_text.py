"""Token ids as people read them."""

from newllm_core.errors import InputError


class TokenText:
    """Decodes single tokens.

    Args:
        tokenizer_json: as the `tokenizers` library writes it; empty if there is none.

    Raises:
        InputError: it is not such a description.
    """

    def __init__(self, tokenizer_json: str) -> None:
        from tokenizers import Tokenizer

        try:
            self._tokenizer = Tokenizer.from_str(tokenizer_json) if tokenizer_json else None
        except Exception as error:  # tokenizers raises bare Exception
            reason = " ".join(str(error).split())
            raise InputError(f"the checkpoint's tokenizer cannot be read: {reason}") from error

    def __call__(self, token: int) -> str:
        """The text of a token, its raw form if it is not whole text, or #id if it has none."""
        if self._tokenizer is None:
            return f"#{token}"
        raw = self._tokenizer.id_to_token(token)
        if raw is None:
            return f"#{token}"
        text = self._tokenizer.decode([token], skip_special_tokens=False)
        # A token may hold part of a character; a replacement sign would say nothing about it.
        return text if text and "\ufffd" not in text else raw
