"""What is held before a call: as little as can be proved to be enough, and where a cap leaves less, a shorter answer.

The input is bounded by what this conversation's earlier calls weighed (`known_inputs`), else by its bytes. Where a cap
is too near for the whole of the output, the hold takes what is left, and the bound that goes to the vendor is lowered
to it, never under what is of use. Where the bytes alone are in the way, and a vendor counts, it is asked first.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from tinyfat.domain.prices import PriceList
from tinyfat.domain.usage import AMOUNT_MAX, Price, Refusal, worst_cost
from tinyfat.ports.inference import Target
from tinyfat.ports.ledger import StoreUnavailable
from tinyfat.ports.usage import Held, Refused, Reservation
from tinyfat.relay.batches import LedgerDesk, Overloaded, heard
from tinyfat.relay.known_inputs import KnownInputs
from tinyfat.relay.models import Models, worst
from tinyfat.relay.request import THINKING_LEAVES, ModelRequest, bound
from tinyfat.relay.shapes.surface import Bound, Surface
from tinyfat.relay.vendors import Asked, Vendors

HINTS_MAX = 10_000
TRIES = 4  # an owner's key may come or go between two of them; a vendor is asked to count once
USEFUL_TOKENS_MIN = 1024  # of an answer: a shorter one is cut before it says much
THINKING_TOKENS_MIN = 1024  # Anthropic, "Extended thinking": the least budget there is
COUNT_MARGIN = 20  # Anthropic, "Token counting": the count "should be considered an estimate"; a twentieth is added
_BY_A_CAP = (Refusal.MONTH, Refusal.DAY, Refusal.TURN_MONEY)
_FREE = PriceList(Price(0, 0, 0, 0, "none"))

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Holding:
    """The money for one call lies ready."""

    held: Held
    bounds: list[tuple[Target, Bound]]  # where it may be made, in order; the hold covers each. Empty: nowhere


class Holds:
    def __init__(
        self, models: Models, desk: LedgerDesk, vendors: Vendors, known: KnownInputs, new_id: Callable[[], str]
    ) -> None:
        self._models, self._desk, self._vendors, self._known, self._new_id = models, desk, vendors, known, new_id
        self._owner_vendors: OrderedDict[bytes, str] = OrderedDict()

    def seen(self, key_hash: bytes) -> bool:
        """Has this key opened something of late?"""
        return key_hash in self._owner_vendors

    async def opens(self, key_hash: bytes) -> bool:
        """Does this key open anything? Raises StoreUnavailable, Overloaded."""
        verdict = await self.identified(key_hash)
        return isinstance(verdict, Held) or verdict.refusal is not Refusal.UNKNOWN_KEY

    async def identified(self, key_hash: bytes, alias: str = "") -> Held | Refused:
        """By a hold of nothing, which is released at once. Raises StoreUnavailable, Overloaded."""
        first = self._models.table_vendor(alias)
        nothing = Reservation(self._new_id(), key_hash, 0, "models", alias, "", "", _FREE.base, table_vendor=first)
        verdict = await self._reserved(nothing)
        self._remember(key_hash, verdict)
        if isinstance(verdict, Held):
            await self.release(verdict.call_id)
        return verdict

    async def hold(
        self, surface: Surface, asked: Asked, request: ModelRequest, among: Collection[Target] | None = None
    ) -> Holding | Refused:
        """An agent on its owner's key is held for that vendor's price: known from its last call, else asked again. By a
        price that is not the one to be paid, nothing is judged: the ledger says `OTHER_KEY` first. `among`: of the
        targets only these.

        Raises StoreUnavailable, Overloaded.
        """
        may_count = True
        for _ in range(TRIES):
            owner_vendor = self._owner_vendors.get(asked.key_hash, "")
            targets = self._models.targets(request.model, surface.name, owner_vendor)
            targets = tuple(target for target in targets if among is None or target in among)
            bounds = [(target, bound(request, target, self._known.bound(asked, request, target))) for target in targets]
            counting = self._counting(surface, asked, request, owner_vendor) if may_count else ()
            asking = self._reservation(asked, surface, request, bounds, owner_vendor, quiet=bool(counting))
            verdict = await self._reserved(asking)
            self._remember(asked.key_hash, verdict)
            if isinstance(verdict, Held):
                return Holding(verdict, _covered(request, bounds, verdict.amount))
            if verdict.refusal in _BY_A_CAP and counting:
                may_count = False
                await self._count(asked, request, verdict, counting)
            elif verdict.refusal is not Refusal.OTHER_KEY:
                return verdict
        raise Overloaded("the owner's keys change faster than calls can be made")

    async def _reserved(self, reservation: Reservation) -> Held | Refused:
        """A client that goes in the very moment the money is held does not leave the hold behind."""
        asked = self._desk.reserve(reservation)
        try:
            return await asked
        except asyncio.CancelledError:
            held = asked.done() and not asked.cancelled() and asked.exception() is None
            if held and isinstance(asked.result(), Held):
                self._desk.release(reservation.call_id).add_done_callback(heard)
            raise

    async def release(self, call_id: str) -> None:
        try:
            await self._desk.release(call_id)
        except (StoreUnavailable, Overloaded) as error:
            log.warning("call %s: not released now (%s); its hold stands until it is", call_id, error)

    def _counting(self, surface: Surface, asked: Asked, request: ModelRequest, owner_vendor: str) -> tuple[Target, ...]:
        """Who counts what nobody knows yet, for nothing."""
        if surface.name != "messages" or request.weight.moving:
            return ()
        targets = self._models.targets(request.model, "count_tokens", owner_vendor)
        return tuple(target for target in targets if self._known.bound(asked, request, target) is None)

    async def _count(self, asked: Asked, request: ModelRequest, refused: Refused, targets: Sequence[Target]) -> None:
        payer = Held("", refused.agent_id, refused.byok_vendor)
        for target in targets:
            tokens = await self._vendors.input_tokens(asked, request, payer, target)
            if tokens:
                with_margin = tokens + tokens // COUNT_MARGIN + COUNT_MARGIN
                self._known.learn(asked, request, target.vendor, target.model, with_margin)

    def _reservation(
        self, asked: Asked, surface: Surface, request: ModelRequest, bounds: list[tuple[Target, Bound]],
        owner_vendor: str, quiet: bool,
    ) -> Reservation:  # fmt: skip
        target: Target | None = bounds[0][0] if bounds else None
        prices, vendor, model = (target.prices, target.vendor, target.model) if target else (_FREE, "", "")
        price = prices.at(bounds[0][1].input if bounds else 0)
        amount = min(worst(bounds), AMOUNT_MAX)
        return Reservation(
            self._new_id(), asked.key_hash, amount, surface.name, request.model, vendor, model, price, asked.turn,
            asked.conversation, self._models.table_vendor(request.model), owner_vendor,
            min((_least(request, target, of) for target, of in bounds), default=0), quiet,
        )  # fmt: skip

    def _remember(self, hashed: bytes, verdict: Held | Refused) -> None:
        if isinstance(verdict, Refused) and verdict.refusal is Refusal.UNKNOWN_KEY:
            self._owner_vendors.pop(hashed, None)
            return
        self._owner_vendors[hashed] = verdict.byok_vendor
        self._owner_vendors.move_to_end(hashed)
        if len(self._owner_vendors) > HINTS_MAX:
            self._owner_vendors.popitem(last=False)


def _useful(request: ModelRequest, target: Target) -> int:
    """Tokens of an answer that are worth a call; no more than the request itself asks for."""
    wished = max((most for _, most in request.reading.outputs), default=target.output_max)
    thought = THINKING_LEAVES + THINKING_TOKENS_MIN if request.reading.thinking else 0
    return min(wished, max(USEFUL_TOKENS_MIN, thought))


def _least(request: ModelRequest, target: Target, whole: Bound) -> int:
    """Nano-dollars: the most the shortest useful answer can cost."""
    shorter = bound(request, target, whole.input, _useful(request, target))
    return worst_cost(shorter.input, shorter.output, target.prices.at(shorter.input), shorter.hour, shorter.written)


def _covered(request: ModelRequest, bounds: list[tuple[Target, Bound]], amount: int) -> list[tuple[Target, Bound]]:
    """Those that the hold covers, each with its answer as short as it must be."""
    return [
        (target, fitting)
        for target, whole in bounds
        if (fitting := _fitting(request, target, whole, amount)) is not None
    ]


def _fitting(request: ModelRequest, target: Target, whole: Bound, amount: int) -> Bound | None:
    price = target.prices.at(whole.input)
    if worst_cost(whole.input, whole.output, price, whole.hour, whole.written) <= amount:
        return whole
    if _least(request, target, whole) > amount:
        return None
    fixed = bound(request, target, whole.input, 0)
    left = amount - worst_cost(fixed.input, fixed.output, price, fixed.hour, fixed.written)
    each = left // (price.output * max(1, request.reading.choices))
    return bound(request, target, whole.input, each)
