"""A call that is held: a vendor answers, the client hears it, and it is settled.

The answer's last bytes leave after its row is on disk. Whatever ends the call (the vendor, the client, our own end)
settles or releases the hold in a task of its own, which no cancellation reaches; should the process die, the sweep
does.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping
from datetime import UTC, datetime
from typing import Any, Protocol

from tinyfat.ports.inference import Target, VendorCut
from tinyfat.ports.ledger import StoreUnavailable
from tinyfat.ports.usage import Held, Settlement
from tinyfat.relay.batches import LedgerDesk, Overloaded
from tinyfat.relay.draining import Drains
from tinyfat.relay.known_inputs import KnownInputs
from tinyfat.relay.reply import Reply
from tinyfat.relay.request import ModelRequest
from tinyfat.relay.retry_after import WAIT_SECONDS_MAX, limit_words, seconds_of
from tinyfat.relay.settling import Meter
from tinyfat.relay.shapes.surface import Bound, Surface
from tinyfat.relay.vendor_errors import scrubbed, told_error
from tinyfat.relay.vendors import Asked, StillSilent, Vendors, Waits, log_failure, operators_fault

JSON: Mapping[str, str] = {"content-type": "application/json"}
_SSE = "text/event-stream; charset=utf-8"
_DOWN = ("content-type", "retry-after", "retry-after-ms", "x-should-retry", "request-id", "x-request-id")

log = logging.getLogger(__name__)


class Sink(Protocol):
    """Where the answer goes."""

    async def whole(self, status: int, headers: Mapping[str, str], body: bytes) -> None: ...

    async def begin(self, status: int, headers: Mapping[str, str]) -> None:
        """It leaves with the first write, even an empty one."""

    async def write(self, data: bytes) -> None: ...

    async def end(self, data: bytes) -> None: ...

    def abort(self) -> None:
        """The client is to see that the answer broke off."""


class Answering:
    def __init__(
        self, desk: LedgerDesk, vendors: Vendors, known: KnownInputs, waits: Waits, clock: Callable[[], float]
    ) -> None:
        """`clock`: monotonic seconds."""
        self._desk, self._vendors, self._known, self._clock = desk, vendors, known, clock
        self._drains = Drains(waits.drain_silence)
        self._ending: set[asyncio.Task[Any]] = set()

    async def serve(
        self, surface: Surface, asked: Asked, request: ModelRequest, held: Held,
        bounds: list[tuple[Target, Bound]], began: float, sink: Sink,
    ) -> None:  # fmt: skip
        """From here on the hold ends in `Meter.settled` or a release, whatever happens. Raises StillSilent where the
        client has heard nothing yet, and another vendor can be asked: for that, money is to be held anew."""
        meter = Meter(surface, held.call_id, began, self._clock)
        try:
            await self._answered(surface, asked, request, held, bounds, meter, sink)
        except StillSilent:
            await asyncio.shield(self._later(self._settle(meter.settled("silent"))))
            self._close(meter, asked, request)
            raise
        except (asyncio.CancelledError, ConnectionError, TimeoutError):
            self._later(self._vanished(held, meter, asked, request))
            raise
        except BaseException:
            self._later(self._settle(meter.settled("cut")))
            self._close(meter, asked, request)
            raise
        self._close(meter, asked, request)

    async def release(self, call_id: str) -> None:
        try:
            await self._desk.release(call_id)
        except (StoreUnavailable, Overloaded) as error:
            log.warning("call %s: not released now (%s); its hold stands until it is", call_id, error)

    async def close(self) -> None:
        """After the last call: what is still being settled is waited for, and no vendor longer than a moment."""
        await self._drains.close()
        if self._ending:
            await asyncio.wait(self._ending)

    async def _answered(
        self, surface: Surface, asked: Asked, request: ModelRequest, held: Held,
        bounds: list[tuple[Target, Bound]], meter: Meter, sink: Sink,
    ) -> None:  # fmt: skip
        try:
            reply = await self._vendors.opened(surface, asked, request, held, bounds, meter)
        except VendorCut as cut:
            log.warning("agent %s: an answer broke off: %s", held.agent_id, cut)
            await self._settle(meter.settled("cut"))
            return await sink.whole(502, _tagged(JSON, held), surface.error(502, "The vendor's answer broke off."))
        if reply is None:
            await self._unanswered(held, meter)
            words = "No vendor of this model answered; try again in a moment."
            return await sink.whole(502, _tagged(JSON, held), surface.error(502, words))
        if reply.status >= 400:
            return await self._pass_error(surface, held, reply, meter, sink)
        if reply.reader is not None:
            return await self._pass_stream(held, reply, meter, sink)
        await self._settle(meter.settled("ok"))
        headers = {**_tagged(_down(reply), held, reply), **(JSON if reply.said is not None and reply.said.json else {})}
        return await sink.whole(reply.status, headers, reply.body)

    async def _unanswered(self, held: Held, meter: Meter) -> None:
        """Nothing is owed to who refused a call or hung up on it; who had it for long may have worked."""
        if meter.waited:
            await self._settle(meter.settled("silent"))
        else:
            await self.release(held.call_id)

    async def _pass_error(self, surface: Surface, held: Held, reply: Reply, meter: Meter, sink: Sink) -> None:
        """What of it is for the client; where it speaks of the operator's key, nothing: of that it can mend nothing."""
        log_failure(held, reply)
        await self._end_failed(held, reply, meter)
        status, headers = reply.status, _tagged(_down(reply), held, reply)
        if operators_fault(held, reply):
            words = "The vendor refused the call, which is for the operator to mend."
            return await sink.whole(502, _tagged(JSON, held), surface.error(502, words))
        now = datetime.now(UTC)
        seconds = seconds_of(reply.headers, now)
        if seconds is not None and seconds > WAIT_SECONDS_MAX:
            told = {**_tagged(JSON, held), "retry-after": f"{WAIT_SECONDS_MAX:.0f}", "x-should-retry": "false"}
            return await sink.whole(status, told, surface.error(status, limit_words(seconds, now)))
        if reply.fault is None:
            said = told_error(surface, status, reply.body, reply.key)
        else:
            words = scrubbed(reply.fault.words, reply.key) or "it said no more"
            said = surface.error(status, f"The vendor failed: {words}")
        return await sink.whole(status, {**headers, **JSON}, said)

    async def _pass_stream(self, held: Held, reply: Reply, meter: Meter, sink: Sink) -> None:
        reader = reply.reader
        assert reader is not None
        broken = False
        await sink.begin(reply.status, {**_tagged(_down(reply), held, reply), "content-type": _SSE})
        try:
            async for ready in reply.ready():
                await sink.write(ready)
        except VendorCut as cut:
            log.warning("agent %s: %s cut its answer: %s", held.agent_id, reply.target.vendor, cut)
            broken = True
        last = reader.end()
        fine = not broken and reader.fault is None and (reader.finished or reader.usage is not None)
        await self._settle(meter.settled("ok" if fine else "cut"))
        if broken:
            await sink.write(last)
            sink.abort()
        else:
            await sink.end(last)

    async def _vanished(self, held: Held, meter: Meter, asked: Asked, request: ModelRequest) -> None:
        """The client has gone, or our own end has come. The vendor goes on and bills it: so it is heard to its end, and
        paid what it says; where it says nothing in time, what was held."""
        reply = meter.reply
        try:
            if reply is None:  # no vendor has the call
                return await self._unanswered(held, meter)
            if not meter.all_told:
                await self._drains.drain(held.agent_id, reply)
            if reply.answered and reply.status >= 400:
                return await self._end_failed(held, reply, meter)
            await self._settle(meter.settled("vanished"))
        finally:
            self._close(meter, asked, request)

    async def _end_failed(self, held: Held, reply: Reply, meter: Meter) -> None:
        if reply.charged:
            await self._settle(meter.settled("failed"))
        elif reply.cut is not None:
            await self._settle(meter.settled("cut"))
        elif meter.waited:
            await self._settle(meter.settled("silent"))
        else:
            await self.release(held.call_id)

    async def _settle(self, settlement: Settlement | None) -> None:
        """None: it was settled before, or never called."""
        if settlement is None:
            return
        try:
            await self._desk.settle(settlement)
        except (StoreUnavailable, Overloaded) as error:
            log.warning("call %s: not settled now (%s); its hold stands until it is", settlement.call_id, error)

    def _close(self, meter: Meter, asked: Asked, request: ModelRequest) -> None:
        if meter.counted is not None:
            said = meter.counted
            self._known.learn(asked, request, said.vendor, said.model, max(meter.taken, said.usage.input))
        if meter.reply is not None:
            meter.reply.close()

    def _later(self, ending: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(ending)
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)
        return task


def _down(reply: Reply) -> dict[str, str]:
    headers = reply.headers
    return {name: headers[name] for name in _DOWN if name in headers}


def _tagged(headers: Mapping[str, str], held: Held, reply: Reply | None = None) -> dict[str, str]:
    tags = {"x-tinyfat-call": held.call_id}
    if reply is not None and reply.lowered:
        tags["x-tinyfat-max-tokens-lowered"] = str(reply.lowered)
    return {**headers, **tags}
