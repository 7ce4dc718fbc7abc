"""Gateway in front of an inference engine: adds what its OpenAI-compatible endpoint lacks.

No engine supports infilling there: llama.cpp ignores `suffix` of /v1/completions, transformers
appends it to the answer, vLLM rejects it. The gateway writes the prompt with the model's infilling
tokens, as in the training. It also sets the stop words of the training and temperature 0, with
which the model was evaluated, where a request has none of its own. Everything else, streams
included, is passed through.
"""

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import httpx
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from flows.delivery.stop_words import cut_answer, cut_stream

COMPLETIONS, CHAT = "/v1/completions", "/v1/chat/completions"
METHODS = ["GET", "POST", "DELETE"]  # without OPTIONS, no page in a browser may send JSON
# a page whose host name was pointed at this machine would pass for a local one
HOSTS = ["127.0.0.1", "localhost"]


class SuffixError(ValueError):
    """A request for infilling to a model without infilling tokens."""


def with_training_format(
    path: str,
    body: dict[str, Any],
    stop: Sequence[str],
    infilling: Sequence[str] | None,
    model: str | None,
) -> dict[str, Any]:
    """The body of a request as the engine gets it.

    Args:
        path: Of the endpoint.
        body: As sent.
        stop: Texts that end an answer.
        infilling: Names of the tokens before prefix, suffix and middle; of two, before suffix and
            prefix; None without.
        model: The only model name that the engine accepts; None: any.

    Raises:
        SuffixError: There is a suffix, and the model can't fill in.
    """
    made = {"temperature": 0, **body}
    if model is not None:
        made["model"] = model
    suffix = made.pop("suffix", None) if path == COMPLETIONS else None
    if suffix:
        if infilling is None:
            raise SuffixError(
                "the request has a suffix, and the model's tokenizer has no tokens for infilling; "
                "send the prompt without suffix"
            )
        prefix = made.get("prompt", "")
        texts = (prefix, suffix, "") if len(infilling) == 3 else (suffix, prefix)
        made["prompt"] = "".join(map("".join, zip(infilling, texts, strict=True)))
    elif stop and not made.get("stop"):
        made["stop"] = list(stop)
    return made


def _texts(stop: Any) -> list[str]:
    return [stop] if isinstance(stop, str) else list(stop or ())


def gateway(
    engine: str,
    stop: Sequence[str],
    infilling: Sequence[str] | None,
    model: str | None = None,
    cuts: bool = True,
) -> Starlette:
    """The application.

    Args:
        engine: Address of the engine.
        stop: As in `with_training_format`.
        infilling: As in `with_training_format`.
        model: As in `with_training_format`.
        cuts: The engine leaves the stop word out of the answer.
    """
    client = httpx.AsyncClient(base_url=engine, timeout=None, trust_env=False)

    async def forward(request: Request) -> Response:
        path, content = request.url.path, await request.body()
        ends: Sequence[str] = ()
        if request.method == "POST" and path in (COMPLETIONS, CHAT):
            try:
                body = with_training_format(path, json.loads(content), stop, infilling, model)
            except (ValueError, TypeError, AttributeError) as error:
                text = str(error) if isinstance(error, SuffixError) else f"invalid JSON: {error}"
                problem = {"message": text, "type": "invalid_request_error", "code": 400}
                return JSONResponse({"error": problem}, 400)
            content = json.dumps(body).encode()
            ends = () if cuts else _texts(body.get("stop"))
        sent = client.build_request(
            request.method,
            httpx.URL(path=path, query=request.url.query.encode()),
            headers={"content-type": "application/json"},
            content=content,
        )
        answer = await client.send(sent, stream=True)
        kind = answer.headers.get("content-type", "application/json")
        whole = ends and answer.is_success and kind.startswith("application/json")
        if whole:
            return Response(cut_answer(await answer.aread(), ends), media_type=kind)
        pieces = cut_stream(answer.aiter_lines(), ends) if ends else answer.aiter_bytes()
        return StreamingResponse(
            pieces,
            answer.status_code,
            {"content-type": kind},
            background=BackgroundTask(answer.aclose),
        )

    @asynccontextmanager
    async def closing(_: Starlette) -> AsyncIterator[None]:
        yield
        await client.aclose()

    return Starlette(
        routes=[Route("/{path:path}", forward, methods=METHODS)],
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=HOSTS)],
        lifespan=closing,
    )
