"""The vendors of a call, asked in order until one answers."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from tinyfat.engine.reading import Reading
from tinyfat.ports.inference import (
    Answer,
    Call,
    Inference,
    OwnerKeys,
    Target,
    VendorCut,
    VendorUnreachable,
    vendor_request_id,
)
from tinyfat.ports.usage import Held
from tinyfat.relay.models import key_headers, url_of
from tinyfat.relay.reply import ANSWERS_BYTES_MAX, ERROR_BYTES_MAX, Reply
from tinyfat.relay.request import ModelRequest, only_fields, upstream_body, wants_usage
from tinyfat.relay.settling import Meter
from tinyfat.relay.shapes.surface import Bound, Surface, count, part
from tinyfat.relay.usage_refusers import UsageRefusers, without_stream_options

WORKED_SECONDS = 10.0  # a vendor that closes a call unanswered after so long may have worked on it
_GATEWAYS = (408, 499, 502, 504, 520, 522, 524)  # somebody before the vendor heard nothing from it, or hung up on it
COUNT_PATH = "/v1/messages/count_tokens"
COUNT_SECONDS_MAX = 20.0
COUNT_SOON_SECONDS_MAX = 5.0  # where a call waits for it
OPERATORS_FAULT = (401, 402, 403)  # the vendor refuses the operator's key: no fault of the agent's
FIXED_HEADERS = {"content-type": "application/json", "accept-encoding": "identity", "user-agent": "TinyFat"}

# What Anthropic's count_tokens takes (MessageCountTokensParams, and of the beta): it refuses what changes no count.
_COUNTED_FIELDS = (
    "cache_control", "context_management", "messages", "output_config", "output_format", "speed", "system", "thinking",
    "tool_choice", "tools",
)  # fmt: skip

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Waits:
    """Seconds. Nobody's first byte is late before the turn is: thinking can take that long, and is paid. But while
    there is another vendor to ask, an hour is too much to give to one that is perhaps dead."""

    first_byte_streamed: float = 3600.0
    first_byte_whole: float = 3600.0
    first_byte_of_several: float = 300.0  # where another vendor can be asked
    idle: float = 900.0  # between two pieces of a vendor's answer
    drain_silence: float = 8.0  # the same, once the client has hung up


@dataclass(frozen=True, slots=True)
class Asked:
    """A client's call, as it arrived."""

    key_hash: bytes = field(repr=False)
    body: bytes = field(repr=False)
    passed: Mapping[str, str]  # headers that go on to the vendor
    turn: str
    conversation: str

    @property
    def passed_digest(self) -> bytes:
        """Of the headers, which may change what a vendor makes of the body."""
        said = sorted(item for item in self.passed.items() if item[0] != "idempotency-key")
        return hashlib.blake2b(repr(said).encode(), digest_size=8).digest() if said else b""


class StillSilent(Exception):
    """A vendor that took the call said nothing for as long as it was waited for, and may bill it. That is settled, and
    what the next may bill is held, before the next is asked."""

    def __init__(self, left: Sequence[Target]) -> None:
        """`left`: who can still be asked."""
        super().__init__("a vendor said nothing; another can be asked")
        self.left = tuple(left)


def operators_fault(held: Held, reply: Reply) -> bool:
    """The vendor refuses the operator's key."""
    return reply.status in OPERATORS_FAULT and not held.byok_vendor


def _elsewhere(held: Held, reply: Reply) -> bool:
    """May another vendor do better, and this one bill nothing?"""
    if reply.charged:
        return False
    return reply.fault is not None or reply.status == 429 or reply.status >= 500 or operators_fault(held, reply)


def _use(held: Held, reply: Reply) -> int:
    """Of a failure, to the agent's client: when to come again, or what the vendor says, or nothing."""
    if operators_fault(held, reply):
        return 0
    return 2 if "retry-after" in reply.headers or "retry-after-ms" in reply.headers else 1


class Vendors:
    def __init__(self, inference: Inference, owners: OwnerKeys, waits: Waits, clock: Callable[[], float]) -> None:
        """`clock`: monotonic seconds."""
        self._inference, self._owners, self._waits = inference, owners, waits
        self._unasked = UsageRefusers(clock)
        self._answers = Reading(ANSWERS_BYTES_MAX)

    async def opened(
        self, surface: Surface, asked: Asked, request: ModelRequest, held: Held,
        bounds: list[tuple[Target, Bound]], meter: Meter,
    ) -> Reply | None:  # fmt: skip
        """The first vendor that answers with anything but a failure of its own; where there is none, the most useful of
        the failures, and of such the last. None: nobody answered at all. Raises StillSilent; VendorCut, of an answer
        that was not streamed and broke off."""
        failed: list[Reply] = []
        chosen: Reply | None = None
        try:
            for number, (target, bound) in enumerate(bounds):
                last = number == len(bounds) - 1
                found = await self._ask(surface, asked, request, held, target, bound, meter, last)
                if found is not None and not _elsewhere(held, found):
                    chosen = found
                    return chosen
                if found is not None:
                    failed.append(found)
                if meter.waited and not last:
                    raise StillSilent([target for target, _ in bounds[number + 1 :]])
            chosen = max(reversed(failed), key=lambda failure: _use(held, failure), default=None)
            if chosen is not None:
                meter.back_to(chosen, dict(bounds)[chosen.target])
            return chosen
        finally:
            for failure in failed:
                if failure is not chosen:
                    log_failure(held, failure)
                    failure.close()

    async def _ask(
        self, surface: Surface, asked: Asked, request: ModelRequest, held: Held, target: Target, bound: Bound,
        meter: Meter, last: bool,
    ) -> Reply | None:  # fmt: skip
        key = await self._key(held, target)
        if key is None:
            log.error("agent %s: its owner's key for %s is gone; the call is not made", held.agent_id, target.vendor)
            return None
        meter.calling(target, bound)
        counts_in_stream = surface.name == "chat" and request.streamed
        bare = counts_in_stream and target in self._unasked
        try:
            reply = await self._begun(surface, asked, request, target, bound, key, meter, last, bare)
            if counts_in_stream and not bare and not reply.charged and self._unasked.named_in(reply):
                log.info("%s %s speaks of stream_options; asked without them", target.vendor, target.model)
                reply.close()
                reply = await self._begun(surface, asked, request, target, bound, key, meter, last, bare=True)
                if reply.status < 400:
                    self._unasked.remember(target)
            if reply.status in _GATEWAYS and reply.fault is None and meter.waited_seconds > WORKED_SECONDS:
                meter.silent()
            return reply
        except VendorUnreachable as error:
            log.warning("agent %s: %s %s does not answer: %s", held.agent_id, target.vendor, target.model, error)
            if error.silent or meter.waited_seconds > WORKED_SECONDS:
                meter.silent()
            return None

    async def _begun(
        self, surface: Surface, asked: Asked, request: ModelRequest, target: Target, bound: Bound, key: str,
        meter: Meter, last: bool, bare: bool,
    ) -> Reply:  # fmt: skip
        sent = await self._inference.send(self._call(surface, asked, request, target, bound, key, last, bare))
        strip_usage = not wants_usage(request)
        room = self._answers.hold(whose=asked.key_hash.hex())
        meter.reply = reply = Reply(surface, target, key, sent, request.streamed, strip_usage, room, bound.lowered)
        try:
            await reply.begin()
        except VendorUnreachable:
            meter.reply = None
            reply.close()
            raise
        return reply

    async def counted(
        self, asked: Asked, request: ModelRequest, held: Held, targets: Sequence[Target], path: str
    ) -> bytes | None:
        """The first count that a vendor gives of the request's tokens."""
        for target in targets:
            key = await self._key(held, target)
            if key is None:
                continue
            headers = {**asked.passed, **FIXED_HEADERS, **key_headers(target, "count_tokens", key)}
            body = only_fields(request, target.model, _COUNTED_FIELDS)
            call = Call(url_of(target, path), headers, body, COUNT_SECONDS_MAX, COUNT_SECONDS_MAX)
            answer: Answer | None = None
            try:
                answer = await self._inference.open(call)
                if answer.status == 200:
                    return await read_answer(answer, ERROR_BYTES_MAX)
            except (VendorUnreachable, VendorCut) as error:
                log.warning("%s does not count tokens: %s", target.vendor, error)
            finally:
                if answer is not None:
                    answer.close()
        return None

    async def input_tokens(self, asked: Asked, request: ModelRequest, held: Held, target: Target) -> int | None:
        """By the vendor's count; None where it gives none in COUNT_SOON_SECONDS_MAX."""
        try:
            async with asyncio.timeout(COUNT_SOON_SECONDS_MAX):
                raw = await self.counted(asked, request, held, (target,), COUNT_PATH)
        except TimeoutError:
            return None
        try:
            counted = json.loads(raw or b"")
        except (ValueError, RecursionError):
            return None
        return count(part(counted, "input_tokens"))

    async def _key(self, held: Held, target: Target) -> str | None:
        if not held.byok_vendor:
            return target.key
        return await self._owners.key(held.agent_id, target.vendor)

    def _call(
        self, surface: Surface, asked: Asked, request: ModelRequest, target: Target, bound: Bound, key: str,
        last: bool, bare: bool,
    ) -> Call:  # fmt: skip
        ask_usage = surface.name == "chat" and request.streamed and not wants_usage(request) and not bare
        first_byte = self._waits.first_byte_streamed if request.streamed else self._waits.first_byte_whole
        if not last:
            first_byte = min(first_byte, self._waits.first_byte_of_several)
        headers = {**asked.passed, **FIXED_HEADERS, **key_headers(target, surface.name, key)}
        sent = without_stream_options(request) if bare else request
        body = upstream_body(sent, target.model, ask_usage, bound.lowered, surface.output_field(target))
        return Call(url_of(target, surface.path), headers, body, first_byte, self._waits.idle)


def log_failure(held: Held, reply: Reply) -> None:
    target = reply.target
    level = logging.ERROR if operators_fault(held, reply) else logging.WARNING
    named = vendor_request_id(reply.headers)[:100] or "none"
    inside = " inside its 200" if reply.fault is not None else ""
    log.log(level, "agent %s: %s %s answered %d%s (its request id: %s)", held.agent_id, target.vendor, target.model,
            reply.status, inside, named)  # fmt: skip


async def read_answer(answer: Answer, limit: int) -> bytes:
    """Raises VendorCut, also where it is longer than `limit` bytes."""
    pieces: list[bytes] = []
    size = 0
    async for piece in answer.pieces():
        size += len(piece)
        if size > limit:
            raise VendorCut(f"longer than {limit} bytes")
        pieces.append(piece)
    return b"".join(pieces)
