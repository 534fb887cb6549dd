"""The HTTP interface: OpenAI's, sessions besides, and a page to talk."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from importlib.resources import files
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from newllm_serve.errors import Refused, error_body
from newllm_serve.reply import Reply
from newllm_serve.service import Service

# Of a body that is too large so much is read, so that its sender hears why it is refused.
READ_ANYWAY = 256
TOO_LATE = Response(status_code=499)  # nobody is there to see it


def make_app(service: Service, hosts: list[str]) -> Starlette:
    """Make the application.

    Args:
        service: what it offers.
        hosts: names under which it is asked; pages of others cannot reach it by a name of theirs.
    """

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        service.engine.start()
        yield
        service.engine.stop()

    of = _Handlers(service)
    app = Starlette(
        routes=[
            Route("/", of.page),
            Route("/v1/models", of.models),
            Route("/v1/models/{name:path}", of.model),
            Route("/v1/completions", of.completions, methods=["POST"]),
            Route("/v1/chat/completions", of.chat, methods=["POST"]),
            Route("/v1/sessions/{name:path}", of.session, methods=["GET", "DELETE"]),
        ],
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=hosts)],
        exception_handlers={Refused: _refused, HTTPException: _no_such_place, Exception: _bug},
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False
    return app


class _Handlers:
    def __init__(self, service: Service) -> None:
        self._service = service

    async def page(self, request: Request) -> Response:
        return HTMLResponse((files("newllm_serve") / "page.html").read_text(encoding="utf-8"))

    async def models(self, request: Request) -> Response:
        return JSONResponse({"object": "list", "data": [self._service.about]})

    async def model(self, request: Request) -> Response:
        self._service.reader.require_model(request.path_params["name"])
        return JSONResponse(self._service.about)

    async def completions(self, request: Request) -> Response:
        return await self._answer(request, is_chat=False)

    async def chat(self, request: Request) -> Response:
        return await self._answer(request, is_chat=True)

    async def session(self, request: Request) -> Response:
        name = request.path_params["name"]
        if request.method == "DELETE":
            return JSONResponse({"id": name, "deleted": await self._service.forget(name)})
        return JSONResponse(await self._service.look_at(name))

    async def _answer(self, request: Request, *, is_chat: bool) -> Response:
        try:
            body = await self._body(request)
        except ClientDisconnect:
            return TOO_LATE
        asked = await asyncio.to_thread(self._service.reader.read, body, is_chat=is_chat)
        reply = await self._service.begin(asked)
        if asked.stream:
            return _EventStream(reply, self._service)
        try:
            return await _unless_gone(request, reply)
        finally:
            self._service.end(reply)

    async def _body(self, request: Request) -> bytes:
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json":
            raise Refused(400, "the body is JSON: send Content-Type: application/json")
        limits = self._service.limits
        body, size = b"", 0
        try:
            async with asyncio.timeout(limits.seconds):
                async for chunk in request.stream():
                    size += len(chunk)
                    if size <= limits.body_bytes:
                        body += chunk
                    elif size > limits.body_bytes * READ_ANYWAY:
                        break
        except TimeoutError as error:
            raise Refused(408, "the body took too long") from error
        if size > limits.body_bytes:
            raise Refused(413, f"the body has more than {limits.body_bytes:,} bytes", "prompt")
        return body


async def _unless_gone(request: Request, reply: Reply) -> Response:
    """Answer, unless the client closes the connection meanwhile."""
    answer = asyncio.ensure_future(reply.body())
    gone = asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait({answer, gone}, return_when=asyncio.FIRST_COMPLETED)
        return JSONResponse(answer.result()) if answer.done() else TOO_LATE
    finally:
        for task in (answer, gone):
            task.cancel()


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


class _EventStream(StreamingResponse):
    """Sends a reply as server-sent events; who reads too slowly is left."""

    def __init__(self, reply: Reply, service: Service) -> None:
        # A proxy that collects what it hands on would hold back every piece.
        told = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
        super().__init__(_events(reply), media_type="text/event-stream", headers=told)
        self._reply = reply
        self._service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            with suppress(TimeoutError):
                # The text itself ends in time; the rest is for a client to take what is there.
                async with asyncio.timeout(2 * self._service.limits.seconds):
                    await super().__call__(scope, receive, send)
        finally:
            self._service.end(self._reply)


async def _events(reply: Reply) -> AsyncIterator[str]:
    try:
        async for chunk in reply.chunks():
            yield _event(json.dumps(chunk))
    except Refused as error:
        yield _event(json.dumps(error.body))
    yield _event("[DONE]")


def _event(data: str) -> str:
    return f"data: {data}\n\n"


async def _refused(request: Request, error: Any) -> Response:  # noqa: ANN401 - as Starlette has it
    headers = {"Retry-After": "1"} if error.status in (429, 503) else None
    return JSONResponse(error.body, status_code=error.status, headers=headers)


async def _no_such_place(request: Request, error: Any) -> Response:  # noqa: ANN401
    message = f"{error.detail}: {request.method} {request.url.path}"[:500]
    body = error_body(error.status_code, message)
    return JSONResponse(body, status_code=error.status_code, headers=error.headers)


async def _bug(request: Request, error: Any) -> Response:  # noqa: ANN401
    return JSONResponse(error_body(500, "the server failed; its log says why"), status_code=500)
