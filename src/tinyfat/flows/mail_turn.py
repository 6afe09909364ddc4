"""A mail is answered: the question goes to the agent's box, the answer becomes a reply, the reply goes out.

One turn, one reply, whatever dies in between: the turn's id is the box's idempotency key, the reply's Message-ID is
derived from it, and each step may run twice with the effect of one run.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace

from tinyfat.domain.agents import Agent
from tinyfat.domain.failure_kinds import FailureId
from tinyfat.domain.failures import Failure
from tinyfat.domain.mail.addresses import parse_recipient, sender_allowed
from tinyfat.domain.mail.message import Mail
from tinyfat.domain.mail.threads import reply_message_id
from tinyfat.domain.reply_markers import unmarked
from tinyfat.domain.turns import TurnOutcome, TurnResult, TurnState
from tinyfat.engine.mail_reading import MailReading
from tinyfat.engine.steps import FlowStatus, Steps
from tinyfat.flows.delivery import Delivery
from tinyfat.ports.ledger import Agents, MailLedger, Message, Outgoing, TurnRow, Turns
from tinyfat.recipes.reply_mail import ReplyOrder, compose_reply, failure_reply, reply_subject

FLOW = "mail_turn"
ATTEMPTS_MAX = 5  # flows for one turn, should one break; then only a person helps


class MailTurn:
    def __init__(
        self,
        domain: str,
        deadline_seconds: float,
        agents: Agents,
        turns: Turns,
        ledger: MailLedger,
        delivery: Delivery,
        flows: FlowStatus,
        mails: MailReading | None = None,
    ) -> None:
        self._mails = mails or MailReading()
        self._domain = domain
        self._deadline_seconds = deadline_seconds
        self._agents = agents
        self._turns = turns
        self._ledger = ledger
        self._delivery = delivery
        self._flows = flows
        self._carried: set[str] = set()  # turns whose flow runs in this process: the sweep need not ask about them

    async def run(self, steps: Steps, turn_id: str) -> None:
        self._carried.add(turn_id)
        try:
            await self._carry(steps, turn_id)
        finally:
            self._carried.discard(turn_id)

    async def _carry(self, steps: Steps, turn_id: str) -> None:
        await steps.again("offer", lambda: self._turns.offer(turn_id, self._deadline_seconds))
        turn = await steps.again("answer", lambda: self._answer(turn_id))
        reply_row = await steps.again("reply", lambda: self._write_reply(turn))
        await steps.again("send", lambda: self._delivery.attempt(reply_row))
        await steps.again("start the next", lambda: self._start_next(turn))

    async def start(self, turn_id: str, attempt: int) -> None:
        """Idempotent: the flow's id is the turn's."""
        await self._flows.start(FLOW, f"{FLOW}:{turn_id}:{attempt}", turn_id)

    async def sweep(self, limit: int) -> None:
        """Start what a crash left unstarted; give a turn whose flow broke another flow."""
        for turn_id, attempt in await self._turns.startable(limit):
            if turn_id in self._carried:
                continue
            number = attempt
            if await self._flows.broken(f"{FLOW}:{turn_id}:{attempt}"):
                if attempt >= ATTEMPTS_MAX:
                    continue
                number = attempt + 1
                await self._turns.retry_as(turn_id, number)
            await self.start(turn_id, number)

    async def _answer(self, turn_id: str) -> TurnRow:
        """The turn with its result; the box's, or, after the deadline, ours."""
        turn = await self._turns.wait_for_result(turn_id)
        if turn.result is None:
            await self._turns.give_up(turn_id, await self._silence(turn))
            turn = await self._turns.load(turn_id)
        assert turn.result is not None
        # A box that is older than this control plane leaves its runtime's markers in. Long text: not on the loop.
        return replace(turn, result=await asyncio.to_thread(unmarked, turn.result))

    async def _silence(self, row: TurnRow) -> TurnResult:
        agent = await self._agents.get(row.agent_id)
        minutes = max(1, round(self._deadline_seconds / 60))
        return TurnResult(
            TurnOutcome.FAILED,
            failure=Failure(FailureId.MACHINE_UNREACHABLE, {"minutes": minutes}),
            detail=f"no answer from the box of {agent.name} within {self._deadline_seconds:.0f} s; "
            f"`tinyfat agent show {agent.name}` tells how it is",
        )

    async def _write_reply(self, turn: TurnRow) -> str:
        """Compose the reply and close the turn with it. The same turn always gives the same mail."""
        assert turn.result is not None and turn.thread_id is not None
        message, raw = await self._ledger.incoming_of(turn.id)
        agent = await self._agents.get(turn.agent_id)
        mail = await self._mails.read_again(raw, turn.agent_id)
        patterns = [agent.owner, *await self._agents.senders(agent.id)] if mail.reply_to else []
        order = self._order(agent, turn, message, mail, patterns)
        answered = turn.result.outcome is TurnOutcome.ANSWERED
        failure = turn.result.failure or Failure(FailureId.TURN_FAILED)
        # Markdown to HTML, attachments to base64: not on the loop.
        raw_reply = await asyncio.to_thread(compose_reply, order) if answered else failure_reply(order, failure)
        reply = Outgoing(
            turn_id=turn.id,
            agent_id=agent.id,
            thread_id=turn.thread_id,
            message_id=order.message_id,
            in_reply_to=mail.message_id,
            sender=order.agent_address,
            recipient=order.recipient or mail.from_address,  # `_order` names one where From does not
            subject=reply_subject(mail.subject),
            raw=raw_reply,
        )
        return await self._ledger.record_reply(reply, TurnState(turn.result.outcome))

    def _order(self, agent: Agent, row: TurnRow, message: Message, mail: Mail, patterns: list[str]) -> ReplyOrder:
        assert row.result is not None
        tag = parse_recipient(message.recipient).tag
        # Reply-To is followed only to somebody who may write here anyway: an answer goes nowhere else.
        elsewhere = next((address for address in mail.reply_to if sender_allowed(patterns, address)), "")
        return ReplyOrder(
            mail=mail,
            agent_name=agent.name,
            agent_address=f"{agent.name}+{tag}@{self._domain}" if tag else f"{agent.name}@{self._domain}",
            message_id=reply_message_id(row.id, self._domain),
            # When the answer came, not when this step runs: composed again after a crash, it is the same mail.
            at=row.result_at or message.at,
            text=row.result.text,
            attachments=row.result.attachments,
            # Of a mail whose From is in doubt, and that a person released all the same.
            # Whoever let a mail out that names nobody wanted its answer.
            recipient=elsewhere or ("" if mail.from_address else mail.answer_to or agent.owner),
        )

    async def _start_next(self, turn: TurnRow) -> None:
        """The conversation's next mail, if one waits. Lost in a crash, `sweep` starts it."""
        if turn.thread_id and (following := await self._ledger.next_turn(turn.thread_id)):
            await self.start(following, 1)
