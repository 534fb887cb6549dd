"""What a client did wrong, or the server cannot do, in OpenAI's form."""

from typing import Any


class Refused(Exception):
    """A request that gets an error for an answer.

    Args:
        status: of HTTP.
        message: what is wrong, and what to do about it.
        param: of the request, the one that is wrong.
        code: OpenAI's name for the mistake, where it has one.
    """

    def __init__(
        self, status: int, message: str, param: str | None = None, code: str | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.body = error_body(status, message, param, code)


def error_body(
    status: int, message: str, param: str | None = None, code: str | None = None
) -> dict[str, Any]:
    """Return the body of an answer with an error."""
    kinds = {404: "not_found_error", 429: "rate_limit_error"}
    kind = kinds.get(status, "invalid_request_error" if status < 500 else "server_error")
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}
