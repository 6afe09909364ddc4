"""What a call cost, whenever it ends: the dearest reading of what the vendor said, else an estimate, marked as such.

An estimate is never below what the vendor can bill for what is known to have happened: a token of text is at least a
byte. Of a call that nobody saw the end of, all is paid that was held for it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from tinyfat.domain.usage import Price, Usage, cost, worst_cost
from tinyfat.ports.inference import Target
from tinyfat.ports.usage import Settlement
from tinyfat.relay.reply import Reply
from tinyfat.relay.shapes.reported import Count
from tinyfat.relay.shapes.surface import Bound, Surface

# A vendor broke its answer off: what it thought before, nobody saw.
UNSEEN_TOKENS_PER_SECOND = 100
BYTES_PER_TOKEN_MAX = 128  # no vendor's token of text is longer
WIRE_BYTES_PER_TOKEN_MAX = 1024  # nor are events so long for one token: only beyond it is the text itself looked at


@dataclass(frozen=True, slots=True)
class _Seen:
    """Of an answer: what it says of its usage, and how much of it came."""

    counts: list[Count]
    whole: bool  # the vendor ended it, or has said all it will of its usage
    text: Callable[[], int]  # bytes
    wire: int  # bytes: the text is less
    since: Callable[[], int]  # bytes of text, after the last usage


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
        if self.reply is None or outcome == "silent":
            return Usage(bound.input, self._unseen(bound, 0, outcome), estimated=True)
        seen = self._seen(self.reply)
        if not seen.counts:
            made = min(max(seen.text(), 1), bound.output) if seen.whole else self._unseen(bound, seen.text(), outcome)
            return Usage(bound.input, made, estimated=True)
        found = [self._resolved(count, seen, target, bound, outcome) for count in seen.counts]
        return max(found, key=lambda usage: cost(usage, target.prices.at(usage.input)))

    def _unseen(self, bound: Bound, text: int, outcome: str) -> int:
        """Tokens of output of an answer that did not end."""
        if outcome != "cut":
            return bound.output
        return min(max(text, int(self.waited_seconds * UNSEEN_TOKENS_PER_SECOND)), bound.output)

    def _seen(self, reply: Reply) -> _Seen:
        reader = reply.reader
        if reader is not None:
            return _Seen(reader.counts, reader.finished or reader.final, lambda: reader.text_bytes, reader.passed_bytes,
                         lambda: reader.text_bytes_since)  # fmt: skip
        size = len(reply.body)
        text = self._surface.text_bytes(reply.parsed) if reply.parsed else reply.gathered_bytes
        return _Seen(reply.counts, bool(size), lambda: text, size, lambda: 0)

    def _resolved(self, count: Count, seen: _Seen, target: Target, bound: Bound, outcome: str) -> Usage:
        """One reading, with estimates where it says nothing, or what cannot be."""
        taken, made, estimated = count.input, count.output, count.fees
        if not taken and made is None:  # a total alone: by the dearest reading, the answer was as long as it could be
            made = min(count.total, bound.output)
            taken, estimated = max(count.total - made, 1), True
        if not taken:
            taken, estimated = bound.input, True
        plausible = self._made(made, seen, bound, outcome)
        if plausible != made:
            made, estimated = plausible, True
        hour = max(count.written_1h, count.written - count.written_5m if bound.hour else 0)
        usage = Usage(taken, made or 0, count.cached, count.written, min(count.reasoning, made or 0), estimated, hour)
        return _billed(usage, count.cost, bound, target.prices.at(taken))

    def _made(self, made: int | None, seen: _Seen, bound: Bound, outcome: str) -> int:
        """Tokens of output."""
        if made is None:
            return min(max(seen.text(), 1), bound.output) if seen.whole else self._unseen(bound, seen.text(), outcome)
        since = seen.since()
        if not seen.whole:
            told = outcome == "cut" and seen.text() > since  # it counts as it goes: what it thinks is counted, too
            return max(made + since, 0 if told else self._unseen(bound, since, outcome))
        if since:
            return max(made, min(made + since, bound.output))
        if seen.wire > made * WIRE_BYTES_PER_TOKEN_MAX and seen.text() > made * BYTES_PER_TOKEN_MAX:
            return max(made, min(seen.text(), bound.output))
        return made


def _billed(usage: Usage, bill: int, bound: Bound, price: Price) -> Usage:
    """Where the vendor names a bill that its tokens do not come to, as tokens of output; up to what was held, for it
    may be in another money."""
    most = max(worst_cost(bound.input, bound.output, price, bound.hour), 0)
    missing = min(bill, most) - cost(usage, price)
    if missing <= 0 or not price.output:
        return usage
    return replace(usage, output=usage.output + -(-missing // price.output), estimated=True)
