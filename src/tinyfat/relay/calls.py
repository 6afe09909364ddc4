"""One call through the relay: bound, reserve, call, stream, settle.

Nothing goes to a vendor before its worst cost is held; the answer's last bytes leave after its row is on disk. Whatever
ends the call (the vendor, the client, our own end) settles or releases the hold in a task of its own, which no
cancellation reaches; should the process die, the sweep does.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Protocol

from tinyfat.domain.failure_kinds import FailureId
from tinyfat.domain.failures import Failure
from tinyfat.domain.usage import Refusal
from tinyfat.ports.inference import Inference, OwnerKeys, Target, VendorCut
from tinyfat.ports.ledger import StoreUnavailable
from tinyfat.ports.usage import Held, Refused, Settlement
from tinyfat.relay.batches import LedgerDesk, Overloaded
from tinyfat.relay.holding import Holding, Holds
from tinyfat.relay.json_body import RequestRefused
from tinyfat.relay.known_inputs import KnownInputs
from tinyfat.relay.models import Models
from tinyfat.relay.reading import Readers, Reading
from tinyfat.relay.request import ModelRequest, wants_usage
from tinyfat.relay.settling import Meter
from tinyfat.relay.shapes.surface import Bound, Surface
from tinyfat.relay.vendor_errors import told_error
from tinyfat.relay.vendors import ERROR_BYTES_MAX, Asked, Opened, Vendors, Waits, log_failure, read_answer

ANSWER_BYTES_MAX = 64 * 1024 * 1024  # of an answer that is not streamed

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


class Calls:
    def __init__(
        self, models: Models, desk: LedgerDesk, vendors: Inference, owners: OwnerKeys, waits: Waits,
        clock: Callable[[], float], new_id: Callable[[], str], readers: Readers | None = None,
    ) -> None:  # fmt: skip
        """`clock`: monotonic seconds. `readers`: who reads large bodies; without them it is done here."""
        self._models, self._desk, self._vendors = models, desk, Vendors(vendors, owners, waits)
        self._known = KnownInputs()
        self._holds = Holds(models, desk, self._vendors, self._known, new_id)
        self._readers = Reading(readers)
        self._clock, self._new_id = clock, new_id
        self._ending: set[asyncio.Task[Any]] = set()

    async def serve(self, surface: Surface, asked: Asked, sink: Sink) -> None:
        """Of a key that opens something. Raises StoreUnavailable, Overloaded."""
        began = self._clock()
        try:
            request = await self._readers.read(surface, asked)
        except RequestRefused as refused:
            return await sink.whole(400, JSON, surface.error(400, str(refused)))
        verdict = await self._holds.hold(surface, asked, request)
        if isinstance(verdict, Refused):
            return await _refuse(surface, request, verdict, self._new_id(), sink)
        if objection := self._objection(surface, request, verdict):
            await self._holds.release(verdict.held.call_id)
            status, words = objection
            return await sink.whole(status, JSON, surface.error(status, words))
        await self._held(surface, asked, request, verdict.held, verdict.bounds, began, sink)
        return None

    def _objection(self, surface: Surface, request: ModelRequest, holding: Holding) -> tuple[int, str] | None:
        """On the account that others use, too, nobody is told apart by the ids of what lies there."""
        if not holding.bounds:
            words = f"The model {request.model!r} is not offered on {surface.path}; GET /v1/models lists what there is."
            return 404, words
        if request.stored and not holding.held.byok_vendor:
            return 400, f"{request.stored} is not offered here: it is kept in an account that others use, too"
        return None

    def seen(self, key_hash: bytes) -> bool:
        """Has this key opened something of late?"""
        return self._holds.seen(key_hash)

    async def known(self, key_hash: bytes) -> bool:
        """Does this key open anything? Raises StoreUnavailable, Overloaded."""
        return await self._holds.opens(key_hash)

    async def read(self, surface: Surface, asked: Asked) -> ModelRequest:
        """Raises RequestRefused, Overloaded."""
        return await self._readers.read(surface, asked)

    async def counted(self, asked: Asked, request: ModelRequest, path: str) -> bytes | None:
        """A vendor's count of a request's tokens, which costs nothing; None where none of them counts this model's.
        Raises RequestRefused."""
        verdict = await self._holds.identified(asked.key_hash, request.model)
        if isinstance(verdict, Refused):
            return None
        if request.stored and not verdict.byok_vendor:
            raise RequestRefused(f"{request.stored} is not offered here")
        targets = self._models.targets(request.model, "count_tokens", verdict.byok_vendor)
        return await self._vendors.counted(asked, request, verdict, targets, path)

    async def close(self) -> None:
        """After the last call: what is still being settled is waited for."""
        if self._ending:
            await asyncio.wait(self._ending)
        await self._desk.close()

    async def _held(
        self, surface: Surface, asked: Asked, request: ModelRequest, held: Held,
        bounds: list[tuple[Target, Bound]], began: float, sink: Sink,
    ) -> None:  # fmt: skip
        """From here on the hold ends in `Meter.settled` or a release, whatever happens."""
        meter = Meter(surface, held.call_id, len(request.raw), began, self._clock)
        opened: Opened | None = None
        try:
            opened = await self._vendors.opened(surface, asked, request, held, bounds, meter)
            if opened is None:
                await self._holds.release(held.call_id)
                words = "No vendor of this model answered; try again in a moment."
                return await sink.whole(502, _tagged(JSON, held), surface.error(502, words))
            if opened.answer.status >= 400:
                return await self._pass_error(surface, held, opened, sink)
            if opened.answer.headers.get("content-type", "").startswith("text/event-stream"):
                await self._pass_stream(surface, request, held, opened, meter, sink)
            else:
                await self._pass_whole(surface, held, opened, meter, sink)
        except (asyncio.CancelledError, ConnectionError, TimeoutError):
            self._later(self._settle(meter.settled("vanished")))
            raise
        except BaseException:
            self._later(self._settle(meter.settled("cut")))
            raise
        finally:
            if meter.counted is not None:
                said = meter.counted
                self._known.learn(asked, request, said.vendor, said.model, said.usage.input)
            if opened is not None:
                opened.answer.close()
        return None

    async def _pass_error(self, surface: Surface, held: Held, opened: Opened, sink: Sink) -> None:
        """What of it is for the client; where it speaks of the operator's key, nothing: of that it can mend nothing."""
        log_failure(held, opened)
        status = opened.answer.status
        try:
            body = await read_answer(opened.answer, ERROR_BYTES_MAX)
        except VendorCut:
            body = b""
        await self._holds.release(held.call_id)
        if opened.operators_fault:
            words = "The vendor refused the call, which is for the operator to mend."
            return await sink.whole(502, _tagged(JSON, held), surface.error(502, words))
        headers = {**_down(opened.answer.headers), **JSON}
        told = told_error(surface, status, body, opened.target.key)
        return await sink.whole(status, _tagged(headers, held, opened), told)

    async def _pass_stream(
        self, surface: Surface, request: ModelRequest, held: Held, opened: Opened, meter: Meter, sink: Sink
    ) -> None:
        reader = surface.stream(strip_usage=not wants_usage(request))
        meter.reading(reader)
        broken = False
        await sink.begin(opened.answer.status, _tagged(_down(opened.answer.headers), held, opened))
        try:
            async for piece in opened.answer.pieces():
                if ready := reader.feed(piece):
                    await sink.write(ready)
        except VendorCut as cut:
            log.warning("agent %s: %s cut its answer: %s", held.agent_id, opened.target.vendor, cut)
            broken = True
        last = reader.end()
        fine = not broken and (reader.finished or reader.usage is not None)
        await self._settle(meter.settled("ok" if fine else "cut"))
        if broken:
            await sink.write(last)
            sink.abort()
        else:
            await sink.end(last)

    async def _pass_whole(self, surface: Surface, held: Held, opened: Opened, meter: Meter, sink: Sink) -> None:
        try:
            body = await read_answer(opened.answer, ANSWER_BYTES_MAX)
        except VendorCut as cut:
            log.warning("agent %s: %s cut its answer: %s", held.agent_id, opened.target.vendor, cut)
            await self._settle(meter.settled("cut"))
            return await sink.whole(
                502, _tagged(JSON, held, opened), surface.error(502, "The vendor's answer broke off.")
            )
        meter.read(body)
        await self._settle(meter.settled("ok"))
        return await sink.whole(opened.answer.status, _tagged(_down(opened.answer.headers), held, opened), body)

    async def _settle(self, settlement: Settlement | None) -> None:
        """None: it was settled before, or never called."""
        if settlement is None:
            return
        try:
            await self._desk.settle(settlement)
        except (StoreUnavailable, Overloaded) as error:
            log.warning("call %s: not settled now (%s); its hold stands until it is", settlement.call_id, error)

    def _later(self, ending: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(ending)
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)


JSON: Mapping[str, str] = {"content-type": "application/json"}
UNKNOWN_KEY_WORDS = "This key opens nothing: it is unknown or was revoked."
_DOWN = ("content-type", "retry-after", "retry-after-ms", "x-should-retry", "request-id", "x-request-id")


async def _refuse(surface: Surface, request: ModelRequest, refused: Refused, call_id: str, sink: Sink) -> None:
    words = refused.words or Failure(FailureId.CALL_REFUSED).text()
    if refused.refusal is Refusal.UNKNOWN_KEY:
        return await sink.whole(401, JSON, surface.error(401, UNKNOWN_KEY_WORDS))
    log.info("agent %s: a call was refused: %s", refused.agent_id, refused.refusal)
    streamed = request.streamed and surface.refuses_in_words
    kind = {"content-type": "text/event-stream; charset=utf-8"} if streamed else JSON
    status = 200 if surface.refuses_in_words else 429
    headers = {**kind, "x-tinyfat-refused": refused.refusal.value}
    if status != 200:
        headers["x-should-retry"] = "false"  # the vendors' clients heed it: to ask again at once changes nothing
    return await sink.whole(status, headers, surface.refusal(words, request.model, call_id, streamed))


def _down(headers: Mapping[str, str]) -> dict[str, str]:
    return {name: headers[name] for name in _DOWN if name in headers}


def _tagged(headers: Mapping[str, str], held: Held, opened: Opened | None = None) -> dict[str, str]:
    tags = {"x-tinyfat-call": held.call_id}
    if opened is not None and opened.lowered:
        tags["x-tinyfat-max-tokens-lowered"] = str(opened.lowered)
    return {**headers, **tags}
