"""Gateway in front of an inference engine: adds what its OpenAI-compatible endpoint lacks.

No engine supports infilling there: llama.cpp ignores `suffix` of /v1/completions, transformers
appends it to the answer, vLLM rejects it. The gateway writes the prompt with the model's infilling
tokens, as in the training. It also sets the stop words of the training and temperature 0, with
which the model was evaluated, where a request has none of its own. Everything else, streams
included, is passed through.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import httpx
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from flows.delivery.request_format import (
    CHAT,
    COMPLETIONS,
    RequestError,
    read_request,
    stop_texts,
    with_training_format,
)
from flows.delivery.stop_words import cut_answer, cut_stream

MODELS = "/v1/models"
METHODS = ["GET", "POST", "DELETE"]  # without OPTIONS, no page in a browser may send JSON
# a page whose host name was pointed at this machine would pass for a local one
HOSTS = ["127.0.0.1", "localhost"]
CLIENT_GONE = 499  # nobody reads the answer


@dataclass(frozen=True)
class Gateway:
    """What the gateway adds to an engine.

    Attributes:
        engine: Address of the engine.
        stop: Texts that end an answer.
        infilling: Names of the tokens before prefix, suffix and middle; of two, before suffix and
            prefix; None without.
        model: The only model name that the engine accepts; None: any.
        cuts: The engine leaves the stop word out of the answer.
        limited: Limits a request, by its path, to the model's window; None: the engine does it.
    """

    engine: str
    stop: Sequence[str]
    infilling: Sequence[str] | None
    model: str | None = None
    cuts: bool = True
    limited: Callable[[str, dict[str, Any]], dict[str, Any]] | None = None

    def application(self) -> Starlette:
        """The application."""
        # an engine may close a connection after an error, and the next request would fail with it
        limits = httpx.Limits(max_keepalive_connections=0)
        client = httpx.AsyncClient(
            base_url=self.engine, timeout=None, trust_env=False, limits=limits
        )

        async def forward(request: Request) -> Response:
            return await self._forward(client, request)

        @asynccontextmanager
        async def closing(_: Starlette) -> AsyncIterator[None]:
            yield
            await client.aclose()

        return Starlette(
            routes=[Route("/{path:path}", forward, methods=METHODS)],
            middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=HOSTS)],
            lifespan=closing,
        )

    async def _forward(self, client: httpx.AsyncClient, request: Request) -> Response:
        path, content = request.url.path, await request.body()
        origin = request.headers.get("origin")
        if origin is not None and origin != f"http://{request.headers['host']}":
            # a page may send JSON as text without asking first
            return _problem(HTTPStatus.FORBIDDEN, f"requests from the page {origin} are rejected")
        ends: Sequence[str] | None = None
        if request.method == "POST" and path in (COMPLETIONS, CHAT):
            try:
                body = self._adapted(path, read_request(content))
            except RequestError as error:
                return _problem(HTTPStatus.BAD_REQUEST, str(error))
            content = json.dumps(body).encode()
            ends = None if self.cuts else stop_texts(body)
        elif path == MODELS and self.model is not None:
            one = {"id": self.model, "object": "model", "created": 0, "owned_by": "finetune"}
            return JSONResponse({"object": "list", "data": [one]})
        sent = client.build_request(
            request.method,
            httpx.URL(path=path, query=request.url.query.encode()),
            headers={"content-type": "application/json"},
            content=content,
        )
        try:
            answer = await _unless_gone(request, client.send(sent, stream=True))
        except httpx.TransportError as error:
            text = f"the engine does not answer ({error}); start finetune serve-model again"
            return _problem(HTTPStatus.BAD_GATEWAY, text)
        if answer is None:
            return Response(status_code=CLIENT_GONE)
        return await _answered(answer, ends)

    def _adapted(self, path: str, sent: dict[str, Any]) -> dict[str, Any]:
        body = with_training_format(path, sent, self.stop, self.infilling, self.model)
        return body if self.limited is None else self.limited(path, body)


async def _answered(answer: httpx.Response, ends: Sequence[str] | None) -> Response:
    """The answer of the engine, cut before the stop words; None: as it is."""
    kind = answer.headers.get("content-type", "application/json")
    is_json = kind.startswith("application/json")
    if answer.status_code >= HTTPStatus.INTERNAL_SERVER_ERROR and not is_json:
        await answer.aclose()
        text = f"the engine failed ({answer.reason_phrase}); the terminal of the server shows why"
        return _problem(HTTPStatus(answer.status_code), text)
    cut = ends is not None and answer.is_success
    if cut and is_json:
        return Response(cut_answer(await answer.aread(), ends or ()), media_type=kind)
    return StreamingResponse(
        cut_stream(answer.aiter_lines(), ends or ()) if cut else answer.aiter_bytes(),
        answer.status_code,
        {"content-type": kind},
        background=BackgroundTask(answer.aclose),
    )


async def _unless_gone(request: Request, sending: Any) -> httpx.Response | None:
    """The engine's answer; None, and the engine stops, if the client closed the connection.

    Editors do so with every key that is typed. Without this, the engine would first finish answers
    that nobody reads.
    """

    async def gone() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    answer, leaving = asyncio.ensure_future(sending), asyncio.ensure_future(gone())
    try:
        await asyncio.wait((answer, leaving), return_when=asyncio.FIRST_COMPLETED)
        return await answer if answer.done() else None
    finally:
        leaving.cancel()
        answer.cancel()


def _problem(status: HTTPStatus, text: str) -> Response:
    kind = "invalid_request_error" if status < HTTPStatus.INTERNAL_SERVER_ERROR else "server_error"
    return JSONResponse({"error": {"message": text, "type": kind, "code": status}}, status)
