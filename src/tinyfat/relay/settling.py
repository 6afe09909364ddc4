"""What a call cost, whenever it ends: the dearest reading of what the vendor said, else an estimate, marked as such.

An estimate is never below what the vendor can bill for what is known to have happened: a token of text is at least a
byte. Of a call that nobody saw the end of, all is paid that was held for it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from tinyfat.domain.usage import Price, Usage, cost
from tinyfat.ports.inference import Target
from tinyfat.ports.usage import Settlement
from tinyfat.relay.reply import Reply
from tinyfat.relay.shapes.reported import Count
from tinyfat.relay.shapes.surface import Bound, Surface

# A vendor broke its answer off: what it thought before, nobody saw.
UNSEEN_TOKENS_PER_SECOND = 100
BYTES_PER_TOKEN_MAX = 128  # no vendor's token of text is longer
WIRE_BYTES_PER_TOKEN_MAX = 1024  # nor are events so long for one token: only beyond it is the text itself looked at
# Nano-dollars for one search or source that a vendor names beside the tokens, and no price of it: the dearest listed
# (OpenAI, "Pricing": web search at $25 to $50 a thousand calls). What a request could ask of them is refused before.
FEE_MAX = 50_000_000
FEES_MAX = 1_000
_BROKEN = ("cut", "ok")  # what it says is no more than what was seen


@dataclass(frozen=True, slots=True)
class _Seen:
    """Of an answer: what it says of its usage, and how much of it came."""

    counts: list[Count]
    streamed: bool
    whole: bool  # the vendor ended it, or has said all it will of its usage
    text: Callable[[], int]  # bytes
    wire: int  # bytes: the text is less
    since: Callable[[], int]  # bytes of text, after the last usage
    broken: int = 0  # bytes of an event that did not end


class Meter:
    """Of one call. It gives its settlement once."""

    def __init__(self, surface: Surface, call_id: str, began: float, clock: Callable[[], float]) -> None:
        self.reply: Reply | None = None  # of the vendor that was called last
        self._surface, self._call_id = surface, call_id
        self._began, self._clock = began, clock
        self._called: tuple[Target, Bound] | None = None
        self._called_at = began
        self._silent: tuple[Target, Bound] | None = None
        self._done = False
        self.counted: Settlement | None = None  # as the vendor itself counted
        self.taken = 0  # tokens of input, of it, by the largest of the readings

    def calling(self, target: Target, bound: Bound) -> None:
        self._called, self._called_at, self.reply = (target, bound), self._clock(), None

    def back_to(self, reply: Reply, bound: Bound) -> None:
        """Of one that was called before the last."""
        self._called, self.reply = (reply.target, bound), reply

    def silent(self) -> None:
        """The vendor that was called last has the call and said nothing until nobody waited any more."""
        self._silent = self._silent or self._called

    @property
    def waited(self) -> bool:
        """A vendor may have worked, and nobody knows."""
        return self._silent is not None

    @property
    def waited_seconds(self) -> float:
        return self._clock() - self._called_at

    @property
    def all_told(self) -> bool:
        """There is nothing to wait for: the usage is known."""
        return self.reply is not None and self._seen(self.reply).whole and self.reply.charged

    def settled(self, outcome: str) -> Settlement | None:
        """None the second time. Of an answer that has not ended, "cut" pays what the vendor can have produced until
        now, and any other outcome what was held."""
        if self._done:
            return None
        self._done = True
        latency_ms = round((self._clock() - self._began) * 1000)
        called = self._silent if outcome == "silent" else self._called
        if called is None:  # the client went before any vendor was asked
            return Settlement(self._call_id, Usage(0, 0, estimated=True), latency_ms, outcome)
        target, bound = called
        usage = self._usage(target, bound, outcome)
        price = target.prices.at(usage.input)
        settlement = Settlement(self._call_id, usage, latency_ms, outcome, target.vendor, target.model, price)
        self.counted = None if usage.estimated else settlement
        return settlement

    def _usage(self, target: Target, bound: Bound, outcome: str) -> Usage:
        price = target.prices.at(bound.input)
        if self.reply is None or outcome == "silent":
            return _uncounted(bound, price, bound.output)
        seen = self._seen(self.reply, outcome)
        if not seen.counts:
            return _uncounted(bound, price, self._made(None, seen, bound, outcome))
        self.taken = max(count.input or 0 for count in seen.counts)
        found = [self._resolved(count, seen, target, bound, outcome) for count in seen.counts]
        return max(found, key=lambda usage: cost(usage, target.prices.at(usage.input)))

    def _unseen(self, seen: _Seen, text: int, bound: Bound, outcome: str) -> int:
        """Tokens of output of an answer that did not end. Of one that is not streamed all was there when it began."""
        if outcome not in _BROKEN or not seen.streamed:
            return bound.output
        return min(max(text + seen.broken, int(self.waited_seconds * UNSEEN_TOKENS_PER_SECOND)), bound.output)

    def _seen(self, reply: Reply, outcome: str = "") -> _Seen:
        reader = reply.reader
        if reader is not None:
            whole = reader.finished or reader.final or outcome == "failed"
            return _Seen(reader.counts, True, whole, lambda: reader.text_bytes, reader.passed_bytes,
                         lambda: reader.text_bytes_since, reader.broken_bytes)  # fmt: skip
        said = reply.said
        if said is None:
            return _Seen([], False, False, lambda: 0, 0, lambda: 0)
        whole = bool(said.counts or (reply.body and said.json))
        return _Seen(said.counts, False, whole, lambda: said.text_bytes, len(reply.body), lambda: 0)

    def _resolved(self, count: Count, seen: _Seen, target: Target, bound: Bound, outcome: str) -> Usage:
        """One reading, with estimates where it says nothing, or what cannot be."""
        taken, made, estimated = count.input, count.output, count.fees > 0
        if not taken and made is None:  # a total alone: by the dearest reading, the answer was as long as it could be
            made = min(count.total, bound.output)
            taken, estimated = max(count.total - made, 1), True
        plausible = self._made(made, seen, bound, outcome)
        if not taken:
            price = target.prices.at(bound.input)
            return _billed(_uncounted(bound, price, plausible), count, price)
        if plausible != made:
            made, estimated = plausible, True
        hour = max(count.written_1h, count.written - count.written_5m if bound.hour else 0)
        usage = Usage(taken, made or 0, count.cached, count.written, min(count.reasoning, made or 0), estimated, hour)
        return _billed(usage, count, target.prices.at(taken))

    def _made(self, made: int | None, seen: _Seen, bound: Bound, outcome: str) -> int:
        """Tokens of output."""
        if made is None:
            text = seen.text()
            return min(max(text, 1), bound.output) if seen.whole else self._unseen(seen, text, bound, outcome)
        since = seen.since()
        if not seen.whole:
            told = outcome in _BROKEN and seen.text() > since  # it counts as it goes: what it thinks is counted, too
            return max(made + since + seen.broken, 0 if told else self._unseen(seen, since, bound, outcome))
        if since:
            return max(made, min(made + since, bound.output))
        if seen.wire > made * WIRE_BYTES_PER_TOKEN_MAX and seen.text() > made * BYTES_PER_TOKEN_MAX:
            return max(made, min(seen.text(), bound.output))
        return made


def _uncounted(bound: Bound, price: Price, made: int) -> Usage:
    """Of the input, what was held for it: the dearest that the vendor's cache can have made of it."""
    taken = bound.input
    dearest = max((price.input, ""), (price.cached, "cached"), *([(price.cache_written, "written")] * bound.written),
                  *([(price.hour, "hour")] * bound.hour))[1]  # fmt: skip
    return Usage(
        taken, made, taken if dearest == "cached" else 0, taken if dearest in ("written", "hour") else 0,
        estimated=True, cache_written_1h=taken if dearest == "hour" else 0,
    )  # fmt: skip


def _billed(usage: Usage, count: Count, price: Price) -> Usage:
    """Where the vendor names a bill, or something that is not tokens, what its tokens do not come to is added as tokens
    of output: money is what a cap counts."""
    bill = count.cost or cost(usage, price) + min(count.fees, FEES_MAX) * FEE_MAX
    missing = bill - cost(usage, price)
    if missing <= 0:
        return usage
    if price.output:
        return replace(usage, output=usage.output + -(-missing // price.output), estimated=True)
    if price.input:
        return replace(usage, input=usage.input + -(-missing // price.input), estimated=True)
    return usage
