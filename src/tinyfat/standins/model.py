"""A stand-in for a model's vendor: OpenAI's and Anthropic's wire formats, streamed and not. It needs no key.

    python -m tinyfat.standins.model --listen 127.0.0.1:8099

OpenAI: POST /v1/chat/completions, GET /v1/models. Anthropic: POST /v1/messages. What it answers: model_answer.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from tinyfat.standins import model_anthropic, model_openai
from tinyfat.standins.model_answer import CallTool, Fail, Hang, Reply, Say, reply
from tinyfat.standins.model_reading import Api, characters, read_request

MODEL = "main"
BODY_BYTES_MAX = 64 * 1024 * 1024
HANG_SECONDS_MAX = 3600.0

Seen = Callable[[Api, Mapping[str, Any]], None]


def model_app(seen: Seen | None = None) -> Starlette:
    """An ASGI app. `seen` is called with each request's body, before it is answered."""

    async def chat_completions(request: Request) -> Response:
        return await _serve(request, Api.OPENAI, seen)

    async def messages(request: Request) -> Response:
        return await _serve(request, Api.ANTHROPIC, seen)

    async def models(_: Request) -> Response:
        return JSONResponse({"object": "list", "data": [{"id": MODEL, "object": "model", "owned_by": "tinyfat"}]})

    return Starlette(
        routes=[
            Route("/v1/chat/completions", chat_completions, methods=["POST"]),
            Route("/v1/messages", messages, methods=["POST"]),
            Route("/v1/models", models),
        ]
    )


async def _serve(request: Request, api: Api, seen: Seen | None) -> Response:
    wire = model_openai if api is Api.OPENAI else model_anthropic
    try:
        body = json.loads(await _body(request))
        if not isinstance(body, dict):
            raise ValueError("the body must be a JSON object")  # noqa: TRY004 - the request is wrong, not our call
        correspondence = read_request(body, api)
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
    tokens = (tokens_of(characters(body)), tokens_of(_characters_out(answer)))
    model = str(body.get("model", MODEL))[:200]
    await asyncio.sleep(answer.wait_seconds)
    if not body.get("stream"):
        return JSONResponse(wire.whole(answer, model, tokens))
    options = body.get("stream_options")
    wanted = api is Api.ANTHROPIC or (isinstance(options, dict) and options.get("include_usage") is True)
    events = wire.events(answer, model, tokens if wanted else None)
    return StreamingResponse(_stream(events), media_type="text/event-stream")


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
