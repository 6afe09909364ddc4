"""Vendors that bill: what each answered, in which of the ways that vendors have of saying so, and what it then charges.

This is the oracle of test_money.py. It knows nothing of the relay: a bill is the true tokens at their prices, and a
dialect is how one vendor writes them down. What the relay charges must be no less whichever dialect it was.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.relay.wire import sse
from tinyfat.domain.usage import Price

Json = dict[str, Any]


@dataclass(frozen=True)
class Truth:
    """Tokens, as they were."""

    fresh: int  # of the input: neither read from the cache nor written to it
    cached: int
    written: int  # for five minutes
    hour: int
    pieces: tuple[str, ...]  # of what was said, a token each
    thought: int

    @property
    def taken(self) -> int:
        return self.fresh + self.cached + self.written + self.hour

    @property
    def said(self) -> int:
        return len(self.pieces)

    @property
    def made(self) -> int:
        return self.said + self.thought

    def input_bill(self, price: Price) -> int:
        return (
            self.fresh * price.input + self.cached * price.cached + self.written * price.cache_written
            + self.hour * price.hour
        )  # fmt: skip

    def bill(self, price: Price) -> int:
        return self.input_bill(price) + self.made * price.output


def openai(true: Truth, price: Price) -> Json:
    """Everything is inside of something, and the total is the sum."""
    return {
        "prompt_tokens": true.taken, "completion_tokens": true.made, "total_tokens": true.taken + true.made,
        "prompt_tokens_details": {"cached_tokens": true.cached},
        "completion_tokens_details": {"reasoning_tokens": true.thought},
    }  # fmt: skip


def bare(true: Truth, price: Price) -> Json:
    return {"prompt_tokens": true.taken, "completion_tokens": true.made}


def texts(true: Truth, price: Price) -> Json:
    return {name: str(value) for name, value in bare(true, price).items()}


def floats(true: Truth, price: Price) -> Json:
    return {name: float(value) for name, value in bare(true, price).items()}


def xai(true: Truth, price: Price) -> Json:
    """What was thought is beside what was said; the total alone shows it."""
    return {**openai(true, price), "completion_tokens": true.said}


def beside_without_total(true: Truth, price: Price) -> Json:
    return {"prompt_tokens": true.taken, "completion_tokens": true.said, "reasoning_tokens": true.thought}


def deepseek(true: Truth, price: Price) -> Json:
    return {**bare(true, price), "prompt_cache_hit_tokens": true.cached,
            "prompt_cache_miss_tokens": true.taken - true.cached}  # fmt: skip


def anthropic(true: Truth, price: Price) -> Json:
    """The cache is beside the input."""
    return {
        "input_tokens": true.fresh, "output_tokens": true.made, "cache_read_input_tokens": true.cached,
        "cache_creation_input_tokens": true.written + true.hour,
        "cache_creation": {"ephemeral_5m_input_tokens": true.written, "ephemeral_1h_input_tokens": true.hour},
    }  # fmt: skip


def anthropic_renamed(true: Truth, price: Price) -> Json:
    """By a proxy that gives it the names of OpenAI and leaves the cache where it was."""
    said = anthropic(true, price)
    return {**said, "prompt_tokens": said.pop("input_tokens"), "completion_tokens": said.pop("output_tokens")}


def bedrock(true: Truth, price: Price) -> Json:
    return {"inputTokens": true.fresh, "outputTokens": true.made, "totalTokens": true.taken + true.made,
            "cacheReadInputTokens": true.cached, "cacheWriteInputTokens": true.written + true.hour}  # fmt: skip


def gemini(true: Truth, price: Price) -> Json:
    return {"promptTokenCount": true.taken, "candidatesTokenCount": true.said, "thoughtsTokenCount": true.thought,
            "cachedContentTokenCount": true.cached, "totalTokenCount": true.taken + true.made}  # fmt: skip


def gemini_without_total(true: Truth, price: Price) -> Json:
    said = gemini(true, price)
    del said["totalTokenCount"]
    return said


def cohere(true: Truth, price: Price) -> Json:
    return {"billed_units": {"input_tokens": true.taken, "output_tokens": true.made},
            "tokens": {"input_tokens": true.taken, "output_tokens": true.made}}  # fmt: skip


def openrouter(true: Truth, price: Price) -> Json:
    """The dearest provider's price, and the tokens as another tokenizer counts them."""
    return {"prompt_tokens": max(true.taken // 2, 1), "completion_tokens": true.made // 2,
            "cost": true.bill(price) / 1e9}  # fmt: skip


def openrouter_own_key(true: Truth, price: Price) -> Json:
    """Its own fee, and what the provider behind it charges."""
    bill = true.bill(price) / 1e9
    return {"prompt_tokens": 1, "completion_tokens": 1, "cost": bill * 0.05, "is_byok": True,
            "cost_details": {"upstream_inference_cost": bill}}  # fmt: skip


def perplexity(true: Truth, price: Price) -> Json:
    bill = true.bill(price) / 1e9
    return {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2,
            "cost": {"input_tokens_cost": bill / 2, "output_tokens_cost": bill / 2, "total_cost": bill}}  # fmt: skip


def deepinfra(true: Truth, price: Price) -> Json:
    return {"prompt_tokens": 1, "completion_tokens": 1, "estimated_cost": str(true.bill(price) / 1e9)}


def within_itself(true: Truth, price: Price) -> Json:
    return {"usage": openai(true, price), "queue_time": 0.1}


def in_parts(true: Truth, price: Price) -> Json:
    """Anthropic's, of a call that was made of several: the top says the last alone."""
    first = {"input_tokens": true.fresh // 2, "output_tokens": true.made // 2, "cache_read_input_tokens": true.cached}
    last = {"input_tokens": true.fresh - true.fresh // 2, "output_tokens": true.made - true.made // 2,
            "cache_creation_input_tokens": true.written + true.hour,
            "cache_creation": {"ephemeral_1h_input_tokens": true.hour}}  # fmt: skip
    return {**last, "iterations": [first, last]}


def nothing(true: Truth, price: Price) -> None:
    return None


def zeros(true: Truth, price: Price) -> Json:
    return {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}


def negative(true: Truth, price: Price) -> Json:
    return {"prompt_tokens": -1, "completion_tokens": -1, "total_tokens": -2}


def no_numbers(true: Truth, price: Price) -> Json:
    return {"prompt_tokens": None, "completion_tokens": [true.made], "total_tokens": {}, "prompt_tokens_details": 7}


Dialect = Callable[[Truth, Price], Json | None]
DIALECTS: tuple[Dialect, ...] = (
    openai, bare, texts, floats, xai, beside_without_total, deepseek, anthropic, anthropic_renamed, bedrock, gemini,
    gemini_without_total, cohere, openrouter, openrouter_own_key, perplexity, deepinfra, within_itself, in_parts,
)  # fmt: skip
SILENT: tuple[Dialect, ...] = (nothing, zeros, negative, no_numbers)  # of what was used they say nothing


# Where a usage stands in a stream of chat completions: each gives the events, of which the last ends the stream.


def at_the_end(true: Truth, usage: Json | None) -> list[bytes]:
    return [*_words(true), _finish(), sse({"choices": [], "usage": usage}), sse(b"[DONE]")]


def with_the_finish(true: Truth, usage: Json | None) -> list[bytes]:
    return [*_words(true), _finish(usage=usage), sse(b"[DONE]")]


def after_done(true: Truth, usage: Json | None) -> list[bytes]:
    return [*_words(true), _finish(), sse(b"[DONE]"), sse({"choices": [], "usage": usage})]


def at_first_and_again(true: Truth, usage: Json | None) -> list[bytes]:
    """Before a word is said there is a usage, too, and it looks like the last."""
    first = {"prompt_tokens": true.taken, "completion_tokens": 0}
    return [sse({"choices": [], "usage": first}), *at_the_end(true, usage)]


def in_the_choice(true: Truth, usage: Json | None) -> list[bytes]:
    return [*_words(true), sse({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop", "usage": usage}]}),
            sse(b"[DONE]")]  # fmt: skip


def under_groq(true: Truth, usage: Json | None) -> list[bytes]:
    return [*_words(true), _finish(x_groq={"id": "r", "usage": usage}), sse(b"[DONE]")]


def then_nothing(true: Truth, usage: Json | None) -> list[bytes]:
    return [*_words(true), _finish(), sse({"choices": [], "usage": usage}), sse({"choices": [], "usage": None}),
            sse({"choices": [], "usage": {"prompt_tokens": 0, "completion_tokens": 0}}), sse(b"[DONE]")]  # fmt: skip


def twice_in_one_object(true: Truth, usage: Json | None) -> list[bytes]:
    body = b'{"choices":[],"usage":%s,"usage":{"prompt_tokens":1,"completion_tokens":1}}' % json.dumps(usage).encode()
    return [*_words(true), _finish(), sse(body), sse(b"[DONE]")]


def no_done(true: Truth, usage: Json | None) -> list[bytes]:
    return at_the_end(true, usage)[:-1]


def unreadable(true: Truth, usage: Json | None) -> list[bytes]:
    """Something behind the object: no JSON any more."""
    body = json.dumps({"choices": [], "usage": usage}).encode() + b"}"
    return [*_words(true), _finish(), sse(body), sse(b"[DONE]")]


Place = Callable[[Truth, Json | None], list[bytes]]
PLACES: tuple[Place, ...] = (
    at_the_end, with_the_finish, after_done, at_first_and_again, in_the_choice, under_groq, then_nothing,
    twice_in_one_object, no_done, unreadable,
)  # fmt: skip


def summed(true: Truth) -> list[bytes]:
    """With each word, all until now."""
    return [*(_word(word, usage={"prompt_tokens": true.taken, "completion_tokens": true.thought + number + 1})
              for number, word in enumerate(true.pieces)), _finish(), sse(b"[DONE]")]  # fmt: skip


def stepped(true: Truth) -> list[bytes]:
    """With each word, what it took; first what was thought."""
    first = {"prompt_tokens": true.taken, "completion_tokens": true.thought}
    return [sse({"choices": [{"index": 0, "delta": {"role": "assistant"}}], "usage": first}),
            *(_word(word, usage={"prompt_tokens": 0, "completion_tokens": 1}) for word in true.pieces),
            _finish(), sse(b"[DONE]")]  # fmt: skip


def _words(true: Truth) -> list[bytes]:
    return [_word(word) for word in true.pieces]


def _word(word: str, **more: Any) -> bytes:
    return sse({"choices": [{"index": 0, "delta": {"content": word}, "finish_reason": None}], **more})


def _finish(**more: Any) -> bytes:
    return sse({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}], **more})


# The other surfaces' streams, and whole answers.


def messages_stream(true: Truth, usage: Json | None) -> list[bytes]:
    """What it takes is told at first, the rest at the end."""
    first = {**usage, "output_tokens": 1} if usage and "output_tokens" in usage else {}
    start = {"type": "message_start", "message": {"role": "assistant", "content": [], "usage": first}}
    return [_typed(start), *_blocks(true),
            _typed({"type": "message_delta", "delta": {"stop_reason": None}, "usage": {"output_tokens": 1}}),
            _typed({"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": usage or {}}),
            _typed({"type": "message_stop"})]  # fmt: skip


def responses_stream(true: Truth, usage: Json | None, end: str = "completed") -> list[bytes]:
    words = [{"type": "response.output_text.delta", "delta": word} for word in true.pieces]
    done = {"type": f"response.{end}", "response": {"status": end, "output": [], "usage": usage}}
    return [_typed({"type": "response.created", "response": {"usage": None}}), *map(_typed, words), _typed(done)]


def _blocks(true: Truth) -> list[bytes]:
    return [_typed({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": word}})
            for word in true.pieces]  # fmt: skip


def _typed(body: Json) -> bytes:
    return f"event: {body['type']}\n".encode() + sse(body)


def whole(surface: str, true: Truth, usage: Json | None) -> bytes:
    text = "".join(true.pieces)
    said: Json = {
        "chat": {"choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}]},
        "responses": {"status": "completed", "output": [{"type": "message", "content": [{"text": text}]}]},
        "messages": {"type": "message", "content": [{"type": "text", "text": text}], "stop_reason": "end_turn"},
        "embeddings": {"object": "list", "data": [{"embedding": [0.25] * 8}]},
    }[surface]
    return json.dumps({**said, "usage": usage}).encode()
