"""The usage ledger in memory: what store/usage.py promises, for one process and its tests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from tinyfat.domain.usage import Caps, Price, Refusal, Standing, Usage, cost, refusal_words
from tinyfat.ports.ledger import StoreUnavailable
from tinyfat.ports.usage import Held, Refused, Reservation, Settlement, Spend


@dataclass(frozen=True, slots=True)
class Written:
    """One row of the ledger."""

    agent_id: str
    reservation: Reservation
    settlement: Settlement
    vendor: str
    model: str
    price: Price
    cost: int  # nano-dollars


@dataclass(slots=True)
class _Account:
    caps: Caps
    byok_vendor: str = ""
    spent: int = 0
    ours: int = 0  # of it, what no owner's own key paid
    reserved: int = 0


@dataclass(slots=True)
class MemoryUsageLedger:
    """`down`: the database does not answer. There is one month and one day, and it has no clock: `sweep` takes all."""

    calls: list[Written] = field(default_factory=list)
    down: bool = False
    _agents: dict[str, _Account] = field(default_factory=dict)
    _keys: dict[bytes, str] = field(default_factory=dict)
    _holds: dict[str, tuple[str, Reservation]] = field(default_factory=dict)

    def add(self, agent_id: str, key_hash: bytes, caps: Caps, byok_vendor: str = "") -> None:
        self._agents[agent_id] = _Account(caps, byok_vendor)
        self._keys[key_hash] = agent_id

    def paid_by(self, agent_id: str, byok_vendor: str) -> None:
        """The owner's key at this vendor; "": none."""
        self._agents[agent_id].byok_vendor = byok_vendor

    def cap(self, agent_id: str, caps: Caps) -> None:
        self._agents[agent_id].caps = caps

    def kill(self, agent_id: str) -> None:
        self._agents[agent_id].caps = replace(self._agents[agent_id].caps, killed=True)

    def revoke(self, key_hash: bytes) -> None:
        del self._keys[key_hash]

    async def commit(
        self, reservations: Sequence[Reservation], settlements: Sequence[Settlement], releases: Sequence[str]
    ) -> list[Held | Refused]:
        await self.settle(settlements)
        await self.release(releases)
        return await self.reserve(reservations)

    async def reserve(self, reservations: Sequence[Reservation]) -> list[Held | Refused]:
        self._must_be_up()
        return [self._reserve(reservation) for reservation in reservations]

    async def settle(self, settlements: Sequence[Settlement]) -> None:
        self._must_be_up()
        for settlement in settlements:
            if settlement.call_id in self._holds:
                reservation = self._holds[settlement.call_id][1]
                price = settlement.price or reservation.price
                self._write(settlement, price, cost(settlement.usage, price))

    async def release(self, call_ids: Sequence[str]) -> None:
        self._must_be_up()
        for call_id in call_ids:
            if call_id in self._holds:
                agent_id, reservation = self._holds.pop(call_id)
                self._agents[agent_id].reserved -= reservation.amount

    async def sweep(self, older_than_seconds: float) -> int:
        self._must_be_up()
        left = list(self._holds.items())
        for call_id, (_, reservation) in left:
            swept = Settlement(call_id, Usage(0, 0, estimated=True), 0, "swept")
            self._write(swept, reservation.price, reservation.amount)
        return len(left)

    async def spend(self, agent_id: str) -> Spend:
        account = self._agents[agent_id]
        calls = sum(written.agent_id == agent_id for written in self.calls)
        return Spend(account.spent, account.reserved, calls, account.caps)

    def _must_be_up(self) -> None:
        if self.down:
            raise StoreUnavailable("The database does not answer: switched off by the test")

    def _reserve(self, asked: Reservation) -> Held | Refused:
        agent_id = self._keys.get(asked.key_hash, "")
        if not agent_id:
            return Refused(Refusal.UNKNOWN_KEY, words=refusal_words(Refusal.UNKNOWN_KEY, "", Standing(0, 0, 0, 0)))
        account = self._agents[agent_id]
        if asked.call_id in self._holds:
            return Held(asked.call_id, agent_id, account.byok_vendor, self._holds[asked.call_id][1].amount)
        left = self._left(agent_id, account, asked)
        if left is not None and (asked.amount if asked.least is None else asked.least) <= left < asked.amount:
            asked = replace(asked, amount=left)
        judged = self._judged(agent_id, account, asked)
        if judged is not None:
            refusal, standing = judged
            return Refused(refusal, agent_id, refusal_words(refusal, agent_id, standing), account.byok_vendor)
        account.reserved += asked.amount
        self._holds[asked.call_id] = (agent_id, asked)
        return Held(asked.call_id, agent_id, account.byok_vendor, asked.amount)

    def _left(self, agent_id: str, account: _Account, asked: Reservation) -> int | None:
        """Nano-dollars that every cap leaves. None: there is none."""
        caps, left = account.caps, []
        if asked.turn and caps.turn is not None:
            done = [w.cost for w in self.calls if w.agent_id == agent_id and w.reservation.turn == asked.turn]
            open_ = [r.amount for a, r in self._holds.values() if a == agent_id and r.turn == asked.turn]
            left.append(caps.turn - sum(done) - sum(open_))
        if caps.day is not None:
            left.append(caps.day - account.spent - account.reserved)
        if caps.month is not None and not (caps.included and account.byok_vendor):
            left.append(caps.month - (account.ours if caps.included else account.spent) - account.reserved)
        return min(left, default=None)

    def _judged(self, agent_id: str, account: _Account, asked: Reservation) -> tuple[Refusal, Standing] | None:
        caps = account.caps
        if caps.killed:
            return Refusal.KILLED, Standing(0, 0, 0, asked.amount)
        if asked.owner_vendor not in (None, account.byok_vendor):
            return Refusal.OTHER_KEY, Standing(0, 0, 0, asked.amount)
        if asked.turn:
            done = [w.cost for w in self.calls if w.agent_id == agent_id and w.reservation.turn == asked.turn]
            open_ = [r.amount for a, r in self._holds.values() if a == agent_id and r.turn == asked.turn]
            calls = len(done) + len(open_)
            if caps.turn_calls is not None and calls >= caps.turn_calls:
                return Refusal.TURN_CALLS, Standing(caps.turn_calls, calls, 0, asked.amount)
            if caps.turn is not None and sum(done) + sum(open_) + asked.amount > caps.turn:
                return Refusal.TURN_MONEY, Standing(caps.turn, sum(done), sum(open_), asked.amount)
        if caps.day is not None and account.spent + account.reserved + asked.amount > caps.day:
            return Refusal.DAY, Standing(caps.day, account.spent, account.reserved, asked.amount)
        month = account.ours if caps.included else account.spent
        free = caps.month is None or (caps.included and bool(account.byok_vendor))
        if not free and caps.month is not None and month + account.reserved + asked.amount > caps.month:
            return Refusal.MONTH, Standing(caps.month, month, account.reserved, asked.amount)
        return None

    def _write(self, settlement: Settlement, price: Price, amount: int) -> None:
        agent_id, reservation = self._holds.pop(settlement.call_id)
        account = self._agents[agent_id]
        account.reserved -= reservation.amount
        account.spent += amount
        account.ours += 0 if account.byok_vendor else amount
        vendor, model = settlement.vendor or reservation.vendor, settlement.model or reservation.model
        self.calls.append(Written(agent_id, reservation, settlement, vendor, model, price, amount))
