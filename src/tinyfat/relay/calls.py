"""One call through the relay: bound, reserve, call, stream, settle.

Nothing goes to a vendor before its worst cost is held; the answer's last bytes leave after its row is on disk. Whatever
ends the call (the vendor, the client, our own end) settles or releases the hold in a task of its own, which no
cancellation reaches; should the process die, the sweep does.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from tinyfat.domain.failure_kinds import FailureId
from tinyfat.domain.failures import Failure
from tinyfat.domain.usage import Refusal
from tinyfat.ports.inference import Inference, OwnerKeys, Target
from tinyfat.ports.usage import Refused
from tinyfat.relay.answering import JSON, Answering, Sink
from tinyfat.relay.batches import LedgerDesk
from tinyfat.relay.holding import Holding, Holds
from tinyfat.relay.json_body import RequestRefused
from tinyfat.relay.known_inputs import KnownInputs
from tinyfat.relay.models import Models
from tinyfat.relay.reading import Readers, Reading
from tinyfat.relay.request import ModelRequest
from tinyfat.relay.shapes.surface import Surface
from tinyfat.relay.vendors import Asked, StillSilent, Vendors, Waits

log = logging.getLogger(__name__)


class Calls:
    def __init__(
        self, models: Models, desk: LedgerDesk, vendors: Inference, owners: OwnerKeys, waits: Waits,
        clock: Callable[[], float], new_id: Callable[[], str], readers: Readers | None = None,
    ) -> None:  # fmt: skip
        """`clock`: monotonic seconds. `readers`: who reads large bodies; without them it is done here."""
        self._models, self._desk, self._vendors = models, desk, Vendors(vendors, owners, waits, clock)
        self._known = KnownInputs()
        self._holds = Holds(models, desk, self._vendors, self._known, new_id)
        self._answering = Answering(desk, self._vendors, self._known, waits, clock)
        self._readers = Reading(readers)
        self._clock, self._new_id = clock, new_id

    async def serve(self, surface: Surface, asked: Asked, sink: Sink) -> None:
        """Of a key that opens something. Raises StoreUnavailable, Overloaded."""
        began = self._clock()
        try:
            request = await self._readers.read(surface, asked)
        except RequestRefused as refused:
            return await sink.whole(400, JSON, surface.error(400, str(refused)))
        among: tuple[Target, ...] | None = None
        while True:  # once for each vendor that is silent, at most
            verdict = await self._holds.hold(surface, asked, request, among)
            if isinstance(verdict, Refused):
                return await _refuse(surface, request, verdict, self._new_id(), sink)
            if objection := self._objection(surface, request, verdict):
                await self._holds.release(verdict.held.call_id)
                status, words = objection
                return await sink.whole(status, JSON, surface.error(status, words))
            try:
                return await self._answering.serve(surface, asked, request, verdict.held, verdict.bounds, began, sink)
            except StillSilent as silent:
                among = silent.left

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
        await self._answering.close()
        await self._desk.close()


UNKNOWN_KEY_WORDS = "This key opens nothing: it is unknown or was revoked."


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
