"""Carries turns to the runtime: each once, those of one session in order, and the answer back to the journal."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from tinyfat.box.journal import Journal, TurnPhase
from tinyfat.box.logbook import Logbook
from tinyfat.box.outbox import Outbox
from tinyfat.box.pace import Pace, backoff
from tinyfat.box.runtime import RuntimeUnavailable
from tinyfat.box.workplace import Workplace
from tinyfat.domain.failure_kinds import FailureId
from tinyfat.domain.failures import Failure
from tinyfat.domain.link import ANSWER_FILES_BYTES_MAX, USAGE_BYTES_MAX, WORDS_CHARS_MAX, TurnAnswer
from tinyfat.domain.link_json import encode
from tinyfat.domain.turns import Turn, TurnOutcome, TurnResult

# What a runtime may call a limit of its model's vendor.
_FOR_A_LIMIT = (
    FailureId.VENDOR_LIMIT, FailureId.MODEL_FAILED, FailureId.MODEL_UNREACHABLE, FailureId.TOO_LATE,
    FailureId.EMPTY_ANSWER,
)  # fmt: skip


@dataclass(slots=True)
class _Held:
    """A turn from its offer to its answer."""

    turn: Turn
    deadline_at: float  # Unix time, seconds
    asked: bool  # the runtime may have it already
    expiry: asyncio.TimerHandle | None = None  # while it waits
    trouble: str = ""  # why the runtime has not answered yet, for the operator
    limited_until: float = 0.0  # Unix time: so long the model's vendor lets no call through
    asking: asyncio.Timeout | None = None  # while the runtime is asked


class TurnDesk:
    def __init__(
        self,
        agent_name: str,
        journal: Journal,
        outbox: Outbox,
        logbook: Logbook,
        workplace: Workplace,
        pace: Pace,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.agent_name = agent_name
        self._journal = journal
        self._outbox = outbox
        self._logbook = logbook
        self._workplace = workplace
        self._pace = pace
        self._now = now
        self._waiting: dict[str, _Held] = {}  # by turn id, in order of their offer
        self._running: dict[str, asyncio.Task[None]] = {}
        self._sessions: dict[str, str] = {}  # of those that run, by turn id
        self._held: dict[str, _Held] = {}  # those that run, by turn id
        self._busy_sessions: set[str] = set()
        self._idle = asyncio.Event()
        self._idle.set()
        self._paused = False

    def take_up(self) -> None:
        """What an earlier box left unfinished."""
        for held in self._journal.unfinished():
            self._wait(_Held(held.turn, held.deadline_at, held.asked))
        self._start_what_can()

    def offer(self, turn: Turn) -> None:
        """From the control plane; the same one may come many times."""
        try:
            self._offer(turn)
        except sqlite3.Error as error:  # a full disk: it is offered again
            self._logbook.box(f"turn {turn.id} could not be written down: {error}")

    def _offer(self, turn: Turn) -> None:
        phase = self._journal.phase(turn.id)
        match phase:
            case TurnPhase.ANSWERED:
                self._outbox.answer(turn.id)
            case TurnPhase.RECEIVED | TurnPhase.ASKED:
                self._outbox.receipt(turn.id)
                if self._outbox.holds(turn.id):
                    self._outbox.answer(turn.id)
            case _ if self._journal.full:
                return  # it is offered again; by then there is room
            case _:
                self._take(turn, asked_before=phase is TurnPhase.SETTLED)

    def settle(self, turn_id: str) -> None:
        """Its answer is committed, or nobody wants it any more."""
        try:
            self._journal.settle(turn_id)
        except sqlite3.Error as error:  # it stays, is sent again, and is settled again
            self._logbook.box(f"turn {turn_id} could not be settled: {error}")
        self._outbox.forget(turn_id)
        self._no_longer_waits(turn_id)
        if turn_id in self._running:
            self._running[turn_id].cancel()

    def pause(self) -> None:
        """Start no more turns; those that run go on."""
        self._paused = True

    def resume(self) -> None:
        self._paused = False
        self._start_what_can()

    def under_way(self) -> tuple[str, str] | None:
        """Id and session of the turn that runs; None where none does. Where several do, nobody can tell whose call it
        is: their ids are joined by "+", in order, without a session. So what they call while they run together is
        capped together, and a loop in one of them ends."""
        if len(self._sessions) == 1:
            return next(iter(self._sessions.items()))
        return ("+".join(sorted(self._sessions)), "") if self._sessions else None

    async def whose_call(self, said: str) -> tuple[str, str] | None:
        """As `under_way`; but of several turns the one that makes this call, where the runtime can tell which it is by
        what the call says of its session."""
        if len(self._sessions) > 1 and said and self._workplace.runtime is not None:
            session = await self._workplace.runtime.session_of(said, list(self._sessions.values()))
            for turn_id, running in self._sessions.items():
                if running == session:
                    return turn_id, session
        return self.under_way()

    def limited(self, named: str, seconds: float) -> None:
        """A call of this turn (or of one of several, as `under_way` names them) met a limit of the vendor's that lasts
        so long. Where it outlasts the turn, the runtime has a moment to find another way, and the turn ends."""
        for turn_id in named.split("+"):
            held = self._held.get(turn_id)
            if held is None:
                continue
            held.limited_until = self._now() + seconds
            moment = asyncio.get_running_loop().time() + self._pace.limit_grace
            ends = held.asking.when() if held.asking else None
            if held.limited_until > held.deadline_at and held.asking and ends is not None and ends > moment:
                held.asking.reschedule(moment)

    async def idle(self) -> None:
        """Until no turn runs."""
        await self._idle.wait()

    async def close(self) -> None:
        """Leaves what is unfinished to the next box."""
        self.pause()
        for turn_id in list(self._waiting):
            self._no_longer_waits(turn_id)
        tasks = list(self._running.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _take(self, turn: Turn, asked_before: bool) -> None:
        deadline_at = self._now() + turn.deadline_seconds
        at_once = self._may_start(turn.session) and not self._waiting and self._workplace.ready
        # One write for "received" and "asked" where one follows the other at once.
        self._journal.take(turn, deadline_at, asked=asked_before or at_once)
        self._outbox.receipt(turn.id)
        held = _Held(turn, deadline_at, asked_before)
        if at_once:
            self._start(held)
        else:
            self._wait(held)
            self._start_what_can()

    def _wait(self, held: _Held) -> None:
        turn_id = held.turn.id
        held.expiry = asyncio.get_running_loop().call_later(self._left(held), self._expired, turn_id)
        self._waiting[turn_id] = held

    def _no_longer_waits(self, turn_id: str) -> None:
        held = self._waiting.pop(turn_id, None)
        if held and held.expiry:
            held.expiry.cancel()

    def _expired(self, turn_id: str) -> None:
        del self._waiting[turn_id]
        self._answered(turn_id, self._too_late("it waited behind other turns"))

    def _may_start(self, session: str) -> bool:
        return (
            not self._paused
            and len(self._running) < self._workplace.turns_at_once
            and session not in self._busy_sessions
        )

    def _start_what_can(self) -> None:
        for held in list(self._waiting.values()):
            if self._may_start(held.turn.session):
                self._no_longer_waits(held.turn.id)
                self._start(held)

    def _start(self, held: _Held) -> None:
        turn = held.turn
        self._busy_sessions.add(turn.session)
        self._idle.clear()
        task = asyncio.create_task(self._carry(held))
        self._running[turn.id] = task
        self._held[turn.id] = held
        self._sessions[turn.id] = turn.session
        task.add_done_callback(lambda _: self._finished(turn))

    def _finished(self, turn: Turn) -> None:
        del self._running[turn.id], self._sessions[turn.id], self._held[turn.id]
        self._busy_sessions.discard(turn.session)
        if not self._running:
            self._idle.set()
        self._start_what_can()

    async def _carry(self, held: _Held) -> None:
        turn_id = held.turn.id
        try:
            result = await self._ask(held)
        except TimeoutError:
            result = self._too_late(held.trouble or "the runtime was still at it")
        except Exception as error:  # a mistake of ours: the sender must hear of it, and the operator see it
            self._logbook.box(f"turn {turn_id} failed: {type(error).__name__}: {error}")
            result = self._failed(FailureId.TURN_FAILED, f"{type(error).__name__}: {error}")
        self._answered(turn_id, self._with_limit(held, result))

    def _with_limit(self, held: _Held, result: TurnResult) -> TurnResult:
        """What failed while the vendor let no call through failed for that, whatever the runtime calls it."""
        if not held.limited_until or result.failure is None or result.failure.id not in _FOR_A_LIMIT:
            return result
        return replace(result, failure=Failure(FailureId.VENDOR_LIMIT, {"until": round(held.limited_until)}))

    async def _ask(self, held: _Held) -> TurnResult:
        """Until the runtime answers. Raises TimeoutError at the turn's deadline."""
        attempt = 0
        while True:
            if not self._workplace.ready:
                held.trouble = f"the runtime is not ready: {self._workplace.why_not}"
            async with asyncio.timeout(self._left(held)):
                runtime = await self._workplace.until_ready()
            left = self._left(held)
            try:
                self._journal.mark_asked(held.turn.id)
                asked_before, held.asked = held.asked, True
                # The runtime ends at the deadline by itself, and stops what it began; if not, it is left alone.
                async with asyncio.timeout(left + self._pace.ask_grace) as held.asking:
                    return await runtime.answer(replace(held.turn, deadline_seconds=left), asked_before)
            except (RuntimeUnavailable, sqlite3.Error, OSError) as error:  # TimeoutError is an OSError
                held.trouble = str(error) or type(error).__name__
                if held.limited_until > held.deadline_at:
                    raise TimeoutError from error
            async with asyncio.timeout(self._left(held)):
                await asyncio.sleep(backoff(attempt, self._pace.ask_pause_first, self._pace.ask_pause_max))
            self._logbook.box(f"turn {held.turn.id} is asked again: {held.trouble}")
            attempt += 1

    def _left(self, held: _Held) -> float:
        return max(0.0, held.deadline_at - self._now())

    def _answered(self, turn_id: str, result: TurnResult) -> None:
        # Whoever writes the mail, no key of ours leaves in the answer.
        clean = self._logbook.clean
        result = replace(result, text=clean(result.text), detail=clean(result.detail)[:WORDS_CHARS_MAX])
        if sum(len(attachment.content) for attachment in result.attachments) > ANSWER_FILES_BYTES_MAX:
            words = f"{result.text}\n\n[{Failure(FailureId.FILES_TOO_LARGE).text(self.agent_name)}]"
            result = replace(result, text=words, attachments=())
        if len(json.dumps(result.usage)) > USAGE_BYTES_MAX:
            result = replace(result, usage={})
        frame = encode(TurnAnswer(turn_id, result))
        try:
            self._journal.answer(turn_id, frame)
        except sqlite3.Error as error:
            self._logbook.box(f"the result of turn {turn_id} could not be written down: {error}")
            self._outbox.answer_unstored(turn_id, frame)
            return
        self._outbox.answer(turn_id)

    def _too_late(self, why: str) -> TurnResult:
        state = "" if self._workplace.ready else f" (the runtime now: {self._workplace.why_not})"
        failure = FailureId.TOO_LATE if self._workplace.ready else FailureId.RUNTIME_DOWN
        return self._failed(failure, f"its deadline passed: {why}{state}")

    def _failed(self, failure: FailureId, detail: str) -> TurnResult:
        return TurnResult(TurnOutcome.FAILED, failure=Failure(failure), detail=detail, answered_at=self._now())
