"""The vendors' own clients, unchanged, against the relay."""

from __future__ import annotations

import json
from typing import Any

import anthropic
import openai
import pytest

from tests.relay.relays import VENDOR_KEY, TestRelay, chat

PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
PARAMETERS: dict[str, Any] = {
    "type": "object",
    "properties": {"path": {"type": "string"}, "content": {"type": "string"}},
}
WRITE = "model: write out/report.txt hello then attach"


async def test_a_chat_is_answered_and_paid_as_the_vendor_counts(relay: TestRelay) -> None:
    async with relay.openai() as client:
        answer = await client.chat.completions.create(**chat("model: say four words are here", max_tokens=50))
    assert answer.choices[0].message.content == "four words are here"
    assert answer.usage is not None
    [written] = relay.ledger.calls
    assert written.settlement.usage.input == answer.usage.prompt_tokens
    assert written.settlement.usage.output == answer.usage.completion_tokens
    assert written.cost == answer.usage.prompt_tokens * 300 + answer.usage.completion_tokens * 1200
    assert (written.settlement.outcome, written.model) == ("ok", "vendors/own-name")
    assert relay.standin.requests[0]["model"] == "vendors/own-name"


@pytest.mark.parametrize("asks_usage", [False, True])
async def test_a_streamed_chat_counts_whether_or_not_the_client_asks(relay: TestRelay, asks_usage: bool) -> None:
    options: dict[str, Any] = {"stream_options": {"include_usage": True}} if asks_usage else {}
    async with relay.openai() as client:
        stream = await client.chat.completions.create(**chat("model: say a b c", stream=True, **options))
        chunks = [chunk async for chunk in stream]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == "a b c"
    assert bool(chunks[-1].usage) is asks_usage
    assert all(chunk.choices for chunk in chunks) is not asks_usage
    [written] = relay.ledger.calls
    assert written.settlement.outcome == "ok"
    assert not written.settlement.usage.estimated
    assert written.settlement.usage.output == 2


async def test_a_chat_calls_tools(relay: TestRelay) -> None:
    tools: Any = [{"type": "function", "function": {"name": "write", "parameters": PARAMETERS}}]
    async with relay.openai() as client:
        answer = await client.chat.completions.create(**chat(WRITE, tools=tools))
        stream = await client.chat.completions.create(**chat(WRITE, tools=tools, stream=True))
        deltas = [chunk.choices[0].delta async for chunk in stream]
    call = (answer.choices[0].message.tool_calls or [])[0]
    assert call.type == "function"
    assert json.loads(call.function.arguments)["path"] == "out/report.txt"
    assert any(delta.tool_calls for delta in deltas)
    assert relay.standin.requests[0]["tools"] == tools


async def test_images_go_through(relay: TestRelay) -> None:
    url = f"data:image/png;base64,{PIXEL}"
    content: Any = [{"type": "text", "text": "model: say seen"}, {"type": "image_url", "image_url": {"url": url}}]
    source: Any = {"type": "base64", "media_type": "image/png", "data": PIXEL}
    blocks: Any = [{"type": "text", "text": "model: say seen"}, {"type": "image", "source": source}]
    async with relay.openai() as client, relay.anthropic() as other:
        answer = await client.chat.completions.create(model="main", messages=[{"role": "user", "content": content}])
        message = await other.messages.create(
            model="main", max_tokens=9, messages=[{"role": "user", "content": blocks}]
        )
    assert answer.choices[0].message.content == "seen"
    assert message.content[0].type == "text"
    assert relay.standin.requests[0]["messages"][0]["content"] == content
    assert relay.standin.requests[1]["messages"][0]["content"] == blocks


async def test_messages_streamed_and_not_with_tools(relay: TestRelay) -> None:
    ask: Any = {
        "model": "main",
        "max_tokens": 90,
        "messages": [{"role": "user", "content": "model: say one two three"}],
    }
    tools: Any = [{"name": "write", "input_schema": PARAMETERS}]
    async with relay.anthropic() as client:
        whole = await client.messages.create(**ask)
        async with client.messages.stream(**ask) as stream:
            text = "".join([piece async for piece in stream.text_stream])
            streamed = await stream.get_final_message()
        ask["messages"][0]["content"] = WRITE
        called = await client.messages.create(**ask, tools=tools)
    assert whole.content[0].type == "text"
    assert whole.content[0].text == text == "one two three"
    assert called.stop_reason == "tool_use"
    first, second, _ = await relay.ended(3)
    assert first.settlement.usage.input == whole.usage.input_tokens
    assert second.settlement.usage == first.settlement.usage
    assert streamed.usage.output_tokens == second.settlement.usage.output
    assert {written.reservation.surface for written in relay.ledger.calls} == {"messages"}


async def test_responses_streamed_and_not_with_tools(relay: TestRelay) -> None:
    tools: Any = [{"type": "function", "name": "write", "parameters": PARAMETERS, "strict": False}]
    async with relay.openai() as client:
        whole = await client.responses.create(model="main", input="model: say one two three", max_output_tokens=40)
        async with client.responses.stream(model="main", input="model: say one two three") as stream:
            events = [event async for event in stream]
        called = await client.responses.create(model="main", input=WRITE, tools=tools)
    assert whole.output_text == "one two three"
    assert events[-1].type == "response.completed"
    assert events[-1].response.output_text == "one two three"
    assert called.output[0].type == "function_call"
    first, second, _ = await relay.ended(3)
    assert whole.usage is not None
    assert first.settlement.usage.input == whole.usage.input_tokens
    assert second.settlement.usage == first.settlement.usage
    assert second.settlement.outcome == "ok"


async def test_embeddings(relay: TestRelay) -> None:
    async with relay.openai() as client:
        answer = await client.embeddings.create(model="main", input=["one", "two"], encoding_format="float")
    assert len(answer.data) == 2
    [written] = relay.ledger.calls
    assert written.settlement.usage.input == answer.usage.prompt_tokens
    assert written.reservation.surface == "embeddings"


async def test_count_tokens_and_models_cost_nothing(relay: TestRelay) -> None:
    async with relay.anthropic() as client, relay.openai() as other:
        counted = await client.messages.count_tokens(model="main", messages=[{"role": "user", "content": "x" * 400}])
        names = [model.id async for model in client.models.list()]
        assert [model.id async for model in other.models.list()] == names == ["main"]
        assert (await other.models.retrieve("main")).id == "main"
        with pytest.raises(openai.NotFoundError):
            await other.models.retrieve("nothing")
    assert counted.input_tokens > 100
    assert relay.ledger.calls == []
    assert (await relay.ledger.spend("ada")).reserved == 0


@pytest.mark.parametrize(
    ("status", "of_openai", "of_anthropic"),
    [
        (400, openai.BadRequestError, anthropic.BadRequestError),
        (429, openai.RateLimitError, anthropic.RateLimitError),
        (500, openai.InternalServerError, anthropic.InternalServerError),
        (529, openai.InternalServerError, anthropic.InternalServerError),
    ],
)
async def test_a_vendors_error_keeps_its_shape(
    relay: TestRelay, status: int, of_openai: Any, of_anthropic: Any
) -> None:
    async with relay.openai() as client, relay.anthropic() as other:
        with pytest.raises(of_openai) as refused:
            await client.chat.completions.create(**chat(f"model: status {status}"))
        with pytest.raises(of_anthropic) as also:
            await other.messages.create(
                model="main", max_tokens=9, messages=[{"role": "user", "content": f"model: status {status}"}]
            )
    assert refused.value.status_code == also.value.status_code == status
    assert refused.value.body["message"] == "the test asked for this"
    assert also.value.body["error"]["message"] == "the test asked for this"
    assert refused.value.response.headers["x-tinyfat-call"].startswith("call-")
    assert refused.value.response.headers.get("retry-after") == ("1" if status == 429 else None)
    assert relay.ledger.calls == []
    assert (await relay.ledger.spend("ada")).reserved == 0


async def test_a_model_that_is_not_there(relay: TestRelay) -> None:
    async with relay.openai() as client, relay.anthropic() as other:
        with pytest.raises(openai.NotFoundError, match="'gpt-9' is not offered"):
            await client.chat.completions.create(**(chat("hello") | {"model": "gpt-9"}))
        with pytest.raises(anthropic.NotFoundError, match="'gpt-9' is not offered"):
            await other.messages.create(model="gpt-9", max_tokens=9, messages=[{"role": "user", "content": "hello"}])
    assert relay.standin.requests == []
    assert (await relay.ledger.spend("ada")).reserved == 0


async def test_the_vendor_gets_its_key_and_nothing_of_ours(relay: TestRelay) -> None:
    headers = {"x-tinyfat-turn": "turn-7", "x-tinyfat-conversation": "thread-3", "cookie": "a=b", "x-other": "c"}
    async with relay.openai(default_headers=headers) as client:
        await client.chat.completions.create(**chat("model: say hello"))
    sent = relay.standin.headers[0]
    assert sent["authorization"] == f"Bearer {VENDOR_KEY}"
    allowed = {"host", "authorization", "content-type", "content-length", "accept", "accept-encoding", "user-agent"}
    assert set(sent) <= allowed
    [written] = relay.ledger.calls
    assert (written.reservation.turn, written.reservation.conversation) == ("turn-7", "thread-3")
