from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest

from tinyfat.standins.model import BODY_BYTES_MAX, model_app

WRITE = {"name": "write", "parameters": {"type": "object"}}


@pytest.fixture
async def client() -> AsyncIterator[httpx2.AsyncClient]:
    transport = httpx2.ASGITransport(app=model_app())
    async with httpx2.AsyncClient(transport=transport, base_url="http://model") as client:
        yield client


def asked(text: str, **more: Any) -> dict[str, Any]:
    return {"model": "main", "messages": [{"role": "user", "content": text}], **more}


def sse(text: str) -> list[Any]:
    lines = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: ")]
    return [line if line == "[DONE]" else json.loads(line) for line in lines]


async def test_openai_whole(client: httpx2.AsyncClient) -> None:
    response = await client.post("/v1/chat/completions", json=asked("model: say hello there"))

    body = response.json()
    assert body["object"] == "chat.completion"
    assert body["choices"][0]["message"] == {"role": "assistant", "content": "hello there"}
    assert body["choices"][0]["finish_reason"] == "stop"
    usage = body["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"] > 0


async def test_openai_streamed(client: httpx2.AsyncClient) -> None:
    request = asked("model: say hello  there\\nyou", stream=True, stream_options={"include_usage": True})
    response = await client.post("/v1/chat/completions", json=request)

    *chunks, usage, done = sse(response.text)
    assert response.headers["content-type"].startswith("text/event-stream")
    assert "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks) == "hello  there\nyou"
    assert chunks[-1]["choices"][0]["finish_reason"] == "stop"
    assert (usage["choices"], done) == ([], "[DONE]")
    assert usage["usage"]["completion_tokens"] == 4


async def test_openai_streams_no_usage_unasked(client: httpx2.AsyncClient) -> None:
    response = await client.post("/v1/chat/completions", json=asked("model: say x", stream=True))

    assert "usage" not in response.text


@pytest.mark.parametrize("stream", [False, True])
async def test_openai_calls_a_tool_and_then_attaches(client: httpx2.AsyncClient, stream: bool) -> None:
    text = "model: write out/a.txt All is well then attach"
    request = asked(text, stream=stream, tools=[{"type": "function", "function": WRITE}])
    first = await client.post("/v1/chat/completions", json=request)
    choice = sse(first.text)[0]["choices"][0]["delta"] if stream else first.json()["choices"][0]["message"]
    (call,) = choice["tool_calls"]

    request["messages"] += [
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": call["id"], "content": "written"},
    ]
    second = await client.post("/v1/chat/completions", json={**request, "stream": False})

    assert json.loads(call["function"]["arguments"]) == {"path": "out/a.txt", "content": "All is well"}
    assert second.json()["choices"][0]["message"]["content"] == "I wrote out/a.txt.\nMEDIA:./out/a.txt"


async def test_anthropic_whole(client: httpx2.AsyncClient) -> None:
    response = await client.post("/v1/messages", json=asked("model: say hello", max_tokens=10))

    body = response.json()
    assert (body["type"], body["role"], body["stop_reason"]) == ("message", "assistant", "end_turn")
    assert body["content"] == [{"type": "text", "text": "hello"}]
    assert body["usage"]["output_tokens"] == 2


async def test_anthropic_streamed(client: httpx2.AsyncClient) -> None:
    response = await client.post("/v1/messages", json=asked("model: say hello you", stream=True))

    events = sse(response.text)
    assert [event["type"] for event in events] == [
        "message_start",
        "content_block_start",
        *["content_block_delta"] * 2,
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    assert response.text.startswith("event: message_start\n")
    assert "".join(event["delta"]["text"] for event in events[2:4]) == "hello you"
    assert events[-2]["usage"]["output_tokens"] == 3


@pytest.mark.parametrize("stream", [False, True])
async def test_anthropic_calls_a_tool_and_then_attaches(client: httpx2.AsyncClient, stream: bool) -> None:
    request = asked("model: write out/a.txt Well then attach", stream=stream, tools=[WRITE])
    first = await client.post("/v1/messages", json=request)
    if stream:
        events = sse(first.text)
        block = {**events[1]["content_block"], "input": json.loads(events[2]["delta"]["partial_json"])}
    else:
        (block,) = first.json()["content"]
    result = {"type": "tool_result", "tool_use_id": block["id"], "content": "written"}
    request["messages"] += [{"role": "assistant", "content": [block]}, {"role": "user", "content": [result]}]
    second = await client.post("/v1/messages", json={**request, "stream": False})

    assert (block["name"], block["input"]) == ("write", {"path": "out/a.txt", "content": "Well"})
    assert second.json()["content"][0]["text"] == "I wrote out/a.txt.\nMEDIA:./out/a.txt"


@pytest.mark.parametrize("path", ["chat/completions", "messages"])
async def test_any_tool_can_be_called(client: httpx2.AsyncClient, path: str) -> None:
    exec_tool = {"name": "exec", "parameters": {}}
    tool = {"type": "function", "function": exec_tool} if path == "chat/completions" else exec_tool
    request = asked('model: call exec {"command": "date"}', tools=[tool])
    first = await client.post(f"/v1/{path}", json=request)
    if path == "messages":
        result = {"type": "tool_result", "tool_use_id": "x", "content": [{"type": "text", "text": "Monday"}]}
        request["messages"].append({"role": "user", "content": [result]})
    else:
        request["messages"].append({"role": "tool", "tool_call_id": "x", "content": "Monday"})
    second = await client.post(f"/v1/{path}", json=request)

    assert "date" in first.text
    assert "exec gave: Monday" in second.text


async def test_a_tool_that_is_not_offered_is_not_called(client: httpx2.AsyncClient) -> None:
    response = await client.post("/v1/chat/completions", json=asked("model: write out/a.txt x then attach"))

    assert "offered no tool" in response.json()["choices"][0]["message"]["content"]


@pytest.mark.parametrize(("path", "kind"), [("chat/completions", "server_error"), ("messages", "api_error")])
async def test_an_error_has_the_vendors_shape(client: httpx2.AsyncClient, path: str, kind: str) -> None:
    response = await client.post(f"/v1/{path}", json=asked("model: status 500"))

    assert response.status_code == 500
    assert response.json()["error"]["type"] == kind


@pytest.mark.parametrize("path", ["chat/completions", "messages"])
async def test_a_rate_limit_says_when_to_come_again(client: httpx2.AsyncClient, path: str) -> None:
    response = await client.post(f"/v1/{path}", json=asked("model: status 429"))

    assert (response.status_code, response.headers["retry-after"]) == (429, "1")


@pytest.mark.parametrize(("path", "last"), [("chat/completions", "[DONE]"), ("messages", "message_stop")])
async def test_a_cut_stream_has_no_end(client: httpx2.AsyncClient, path: str, last: str) -> None:
    text = "model: cut\nmodel: say one two three four"
    response = await client.post(f"/v1/{path}", json=asked(text, stream=True))

    assert "one" in response.text
    assert "four" not in response.text
    assert last not in response.text


async def test_usage_can_be_left_out(client: httpx2.AsyncClient) -> None:
    text = "model: no usage\nmodel: say x"
    whole = await client.post("/v1/chat/completions", json=asked(text))
    streamed = await client.post(
        "/v1/chat/completions", json=asked(text, stream=True, stream_options={"include_usage": True})
    )

    assert "usage" not in whole.text + streamed.text


@pytest.mark.parametrize("path", ["chat/completions", "messages"])
@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b'{"messages": []}', b'{"messages": [1]}', b"[" * 99999])
async def test_nonsense_is_a_wrong_request(client: httpx2.AsyncClient, path: str, content: bytes) -> None:
    response = await client.post(f"/v1/{path}", content=content)

    assert response.status_code == 400
    assert "error" in response.json()


async def test_a_body_has_a_largest_size(client: httpx2.AsyncClient) -> None:
    async def endless() -> AsyncIterator[bytes]:
        for _ in range(BODY_BYTES_MAX // 2**20 + 1):
            yield b" " * 2**20

    response = await client.post("/v1/messages", content=endless())

    assert response.status_code == 400


async def test_the_same_request_gives_the_same_bytes(client: httpx2.AsyncClient) -> None:
    request = asked("My boat is called Heron. What is my boat called?", stream=True)
    one, two = [(await client.post("/v1/chat/completions", json=request)).content for _ in range(2)]

    assert one == two


async def test_models(client: httpx2.AsyncClient) -> None:
    response = await client.get("/v1/models")

    assert [model["id"] for model in response.json()["data"]] == ["main"]
