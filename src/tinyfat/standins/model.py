"""A stand-in for a model's vendor: OpenAI's and Anthropic's wire formats, streamed and not. It takes any key, or none.

    python -m tinyfat.standins.model --listen 127.0.0.1:8099

OpenAI: POST /v1/chat/completions, /v1/responses, /v1/embeddings, GET /v1/models. Anthropic: POST /v1/messages,
/v1/messages/count_tokens. What it answers, and how a test has it fail: model_answer. GET /count: what it has served.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from tinyfat.standins import model_anthropic, model_openai, model_responses
from tinyfat.standins.model_answer import CallTool, Fail, Hang, Reply, Say, reply
from tinyfat.standins.model_reading import Api, characters, read_request

MODEL = "main"
BODY_BYTES_MAX = 64 * 1024 * 1024
HANG_SECONDS_MAX = 3600.0
KEYS_COUNTED_MAX = 10_000

Seen = Callable[[Api, Mapping[str, Any]], None]


class Counted:
    """What was served, by the SHA-256 of the key: the vendor's own ledger, to hold ours against."""

    def __init__(self) -> None:
        self._by_key: dict[str, dict[str, int]] = {}

    def add(self, key: str, tokens: tuple[int, int]) -> None:
        name = hashlib.sha256(key.encode()).hexdigest()
        if name not in self._by_key and len(self._by_key) >= KEYS_COUNTED_MAX:
            name = "others"
        line = self._by_key.setdefault(name, {"calls": 0, "input": 0, "output": 0})
        line["calls"] += 1
        line["input"] += tokens[0]
        line["output"] += tokens[1]

    def report(self) -> dict[str, Any]:
        names = ("calls", "input", "output")
        sums = {name: sum(line[name] for line in self._by_key.values()) for name in names}
        return {**sums, "by_key": self._by_key}


def model_app(seen: Seen | None = None) -> Starlette:
    """An ASGI app. `seen` is called with each request's body, before it is answered."""
    counted = Counted()

    async def chat_completions(request: Request) -> Response:
        return await _serve(request, Api.OPENAI, seen, counted)

    async def responses(request: Request) -> Response:
        return await _serve(request, Api.OPENAI, seen, counted, as_responses=True)

    async def messages(request: Request) -> Response:
        return await _serve(request, Api.ANTHROPIC, seen, counted)

    async def embeddings(request: Request) -> Response:
        try:
            body = await _object(request)
            answer = model_responses.embeddings(body, _model(body))
        except (ValueError, RecursionError) as error:
            return JSONResponse(model_openai.error(400, str(error)), 400)
        counted.add(_key(request), (answer["usage"]["prompt_tokens"], 0))
        return JSONResponse(answer)

    async def count_tokens(request: Request) -> Response:
        try:
            return JSONResponse({"input_tokens": tokens_of(characters(await _object(request)))})
        except (ValueError, RecursionError) as error:
            return JSONResponse(model_anthropic.error(400, str(error)), 400)

    async def models(_: Request) -> Response:
        return JSONResponse({"object": "list", "data": [{"id": MODEL, "object": "model", "owned_by": "tinyfat"}]})

    async def count(_: Request) -> Response:
        return JSONResponse(counted.report())

    return Starlette(
        routes=[
            Route("/v1/chat/completions", chat_completions, methods=["POST"]),
            Route("/v1/responses", responses, methods=["POST"]),
            Route("/v1/embeddings", embeddings, methods=["POST"]),
            Route("/v1/messages", messages, methods=["POST"]),
            Route("/v1/messages/count_tokens", count_tokens, methods=["POST"]),
            Route("/v1/models", models),
            Route("/count", count),
        ]
    )


async def _serve(
    request: Request, api: Api, seen: Seen | None, counted: Counted, as_responses: bool = False
) -> Response:
    wire = model_openai if api is Api.OPENAI else model_anthropic
    try:
        body = await _object(request)
        chat = {**body, **model_responses.as_chat(body)} if as_responses else body
        correspondence = read_request(chat, api)
    except (ValueError, RecursionError) as error:
        return JSONResponse(wire.error(400, str(error)), 400)
    if seen is not None:
        seen(api, body)
    answer = reply(correspondence)
    if isinstance(answer, Fail):
        headers = {} if answer.retry_after_seconds is None else {"retry-after": str(answer.retry_after_seconds)}
        return JSONResponse(wire.error(answer.status, "the test asked for this"), answer.status, headers)
    if isinstance(answer, Hang):
        await _until_gone(request)
        return Response(status_code=499)
    tokens = (tokens_of(characters(chat)), tokens_of(_characters_out(answer)))
    counted.add(_key(request), tokens)
    await asyncio.sleep(answer.wait_seconds)
    if not body.get("stream"):
        spoken = model_responses if as_responses else wire
        return JSONResponse(spoken.whole(answer, _model(body), tokens))
    return StreamingResponse(_stream(_events(answer, body, api, tokens, as_responses)), media_type="text/event-stream")


def _events(
    answer: Say | CallTool, body: Mapping[str, Any], api: Api, tokens: tuple[int, int], as_responses: bool
) -> list[str]:
    if as_responses:
        return model_responses.events(answer, _model(body), tokens)
    if api is Api.ANTHROPIC:
        return model_anthropic.events(answer, _model(body), tokens)
    options = body.get("stream_options")
    wanted = isinstance(options, dict) and options.get("include_usage") is True
    return model_openai.events(answer, _model(body), tokens if wanted else None)


def _model(body: Mapping[str, Any]) -> str:
    return str(body.get("model", MODEL))[:200]


def _key(request: Request) -> str:
    return request.headers.get("x-api-key") or request.headers.get("authorization", "").removeprefix("Bearer ")


async def _object(request: Request) -> dict[str, Any]:
    """Raises ValueError, RecursionError."""
    body = json.loads(await _body(request))
    if not isinstance(body, dict):
        raise ValueError("the body must be a JSON object")  # noqa: TRY004 - the request is wrong, not our call
    return body


async def _body(request: Request) -> bytes:
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > BODY_BYTES_MAX:
            raise ValueError(f"the body is over {BODY_BYTES_MAX} bytes")
    return bytes(body)


async def _stream(events: list[str]) -> AsyncIterator[str]:
    for event in events:
        yield event
        await asyncio.sleep(0)


async def _until_gone(request: Request) -> None:
    """Until the client hangs up. The body has been read, so the next message is its going."""
    try:
        async with asyncio.timeout(HANG_SECONDS_MAX):
            while (await request.receive())["type"] != "http.disconnect":
                pass
    except TimeoutError:
        pass


def tokens_of(count: int) -> int:
    """A token is about four characters."""
    return -(-count // 4)


def _characters_out(answer: Reply) -> int:
    if isinstance(answer, Say):
        return len(answer.text)
    return len(json.dumps(answer.arguments)) if isinstance(answer, CallTool) else 0


def main(arguments: list[str] | None = None) -> int:
    import uvicorn

    parser = argparse.ArgumentParser(prog="python -m tinyfat.standins.model", description=__doc__.split("\n")[0])
    parser.add_argument("--listen", default="127.0.0.1:8099", help="address and port (default: %(default)s)")
    host, _, port = parser.parse_args(arguments).listen.rpartition(":")
    if not port.isdigit():
        parser.error("--listen takes ADDRESS:PORT")
    uvicorn.run(model_app(), host=host.strip("[]") or "127.0.0.1", port=int(port), log_level="warning")
    return 0


if __name__ == "__main__":
    sys.exit(main())
