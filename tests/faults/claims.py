"""What must hold after any fault, from three witnesses that do not know each other: the smarthost's mails, the ledger
by the command line, and the runtimes' own logs. Pure."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.faults.sender import Conversation
from tests.mailbox import Received
from tinyfat.domain.mail.threads import reply_message_id

DOMAIN = "tinyfat.localhost"
SHOWN_MAX = 5  # of the mails that broke one claim


@dataclass(frozen=True, slots=True)
class Evidence:
    conversations: Sequence[Conversation]
    replies: Sequence[Received]  # in order of arrival
    ledger: Sequence[dict[str, Any]]  # of all agents; each agent's in its order
    turns: Sequence[dict[str, Any]]  # the lines of all turns.log
    # What this scenario allows:
    bad_news_for: frozenset[str] = frozenset()  # agents whose turns may fail: their box cannot be reached
    repeats_max: int = 0  # second copies of the same mail, where nobody can know whether the first one arrived


@dataclass(frozen=True, slots=True)
class Verdict:
    complaints: list[str]
    mails: int
    conversations: int
    bad_news: int
    repeats: int  # copies of a reply that was there already, the same to the byte


@dataclass(frozen=True, slots=True)
class _Reply:
    """What is needed of a mail at the smarthost, read once."""

    message_id: str
    in_reply_to: str
    text: str
    raw: bytes

    @classmethod
    def read(cls, received: Received) -> _Reply:
        message = received.message
        body = message.get_body(("plain",))
        text = str(body.get_content()) if body is not None else ""
        return cls(str(message["Message-ID"]), str(message["In-Reply-To"] or ""), text, received.raw)


@dataclass(slots=True)
class _Complaints:
    found: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    def add(self, claim: str, about: str) -> None:
        self.found[claim].append(about)

    def lines(self) -> list[str]:
        return [
            f"{claim}: {len(about)}: {'; '.join(about[:SHOWN_MAX])}{' ...' if len(about) > SHOWN_MAX else ''}"
            for claim, about in self.found.items()
        ]


def judge(evidence: Evidence) -> Verdict:
    """No complaints: nothing was lost, nothing was answered twice, the order was kept."""
    complaints = _Complaints()
    accepted = {mail: talk for talk in evidence.conversations for mail in talk.accepted}
    incoming, outgoing = _ledger(evidence, accepted, complaints)
    replies = [_Reply.read(received) for received in evidence.replies]
    repeats = _smarthost(evidence, replies, accepted, outgoing, complaints)
    _runtimes(evidence, incoming, complaints)
    _order(evidence, replies, incoming, complaints)
    if repeats > evidence.repeats_max:
        complaints.add("sent again without need", f"{repeats}, where {evidence.repeats_max} can be explained")
    return Verdict(
        complaints.lines(),
        len(accepted),
        sum(1 for talk in evidence.conversations if talk.accepted),
        sum(row["state"] == "failed" for row in incoming.values()),
        repeats,
    )


Rows = dict[str, dict[str, Any]]


def _ledger(evidence: Evidence, accepted: dict[str, Conversation], complaints: _Complaints) -> tuple[Rows, Rows]:
    """The rows of mail that came in by Message-ID, those that went out by the turn's id."""
    incoming: Rows = {}
    outgoing: Rows = {}
    for row in evidence.ledger:
        mail, key = row["message_id"], "message_id" if row["direction"] == "in" else "turn_id"
        rows = incoming if row["direction"] == "in" else outgoing
        if row[key] in rows:
            complaints.add("ledger: there twice", mail)
        rows[row[key]] = row
    for mail in accepted.keys() - incoming.keys():
        complaints.add("LOST: accepted, and not in the ledger", mail)
    for mail in incoming.keys() - accepted.keys():
        complaints.add("ledger: a mail nobody sent", mail)
    for mail, row in incoming.items():
        may_fail = mail in accepted and accepted[mail].agent in evidence.bad_news_for
        if row["state"] != "answered" and not (row["state"] == "failed" and may_fail):
            complaints.add("ledger: not answered", f"{mail} is {row['state']} {row['reason']}".strip())
        if row["turn_id"] not in outgoing:
            complaints.add("ledger: no reply", mail)
    for turn, row in outgoing.items():
        if row["state"] != "sent":
            complaints.add("ledger: a reply that did not leave", f"{row['message_id']} is {row['state']}")
        if row["message_id"] != reply_message_id(turn, DOMAIN):
            complaints.add("ledger: a reply's Message-ID is not its turn's", row["message_id"])
    return incoming, outgoing


def _smarthost(
    evidence: Evidence,
    replies: Sequence[_Reply],
    accepted: dict[str, Conversation],
    outgoing: Rows,
    complaints: _Complaints,
) -> int:
    """How many copies came of replies that were there already."""
    first: dict[str, _Reply] = {}
    answers: dict[str, set[str]] = defaultdict(set)
    repeats = 0
    for reply in replies:
        answers[reply.in_reply_to].add(reply.message_id)
        if reply.message_id in first:
            repeats += 1
            if first[reply.message_id].raw != reply.raw:
                complaints.add("sent again, and another mail under the same Message-ID", reply.message_id)
        first.setdefault(reply.message_id, reply)
    for mail in accepted.keys() - answers.keys():
        complaints.add("LOST: accepted, and no reply came", mail)
    for mail, ids in answers.items():
        if mail not in accepted:
            complaints.add("a reply to nothing that was sent", mail)
        if len(ids) > 1:
            complaints.add("ANSWERED TWICE", f"{mail} by {', '.join(sorted(ids))}")
    left = {row["message_id"] for row in outgoing.values()}
    for message_id in first.keys() ^ left:
        complaints.add("smarthost and ledger disagree on a reply", message_id)
    for reply in first.values():
        talk = accepted.get(reply.in_reply_to)
        if talk is None or talk.agent in evidence.bad_news_for:
            continue
        number = talk.accepted.index(reply.in_reply_to) + 1
        if f"mail {number} of {talk.name}" not in reply.text:
            complaints.add("the answer to another question", f"{reply.in_reply_to}: {reply.text[:80]!r}")
    return repeats


def _runtimes(evidence: Evidence, incoming: Rows, complaints: _Complaints) -> None:
    events = Counter((line["turn"], line["event"]) for line in _mail_turns(evidence))
    known = {row["turn_id"]: row for row in incoming.values()}
    for turn in {turn for turn, _ in events} - known.keys():
        complaints.add("a runtime ran a turn that no mail asked for", turn)
    for turn, row in known.items():
        for event in ("received", "answered"):
            times = events[turn, event]
            if times > 1:
                complaints.add(f"RAN TWICE: the runtime {event} it more than once", f"{row['message_id']}: {times}")
            if times == 0 and row["state"] == "answered":
                complaints.add(f"answered, and its runtime never {event} it", row["message_id"])


def _order(evidence: Evidence, replies: Sequence[_Reply], incoming: Rows, complaints: _Complaints) -> None:
    """Within a conversation: the ledger took, the runtime ran, and the smarthost got them as they were accepted."""
    arrived: dict[str, int] = {}
    for place, reply in enumerate(replies):
        arrived.setdefault(reply.in_reply_to, place)
    taken = {mail: place for place, mail in enumerate(incoming)}
    ran: dict[str, int] = {}
    for place, line in enumerate(_mail_turns(evidence)):
        if line["event"] == "answered":
            ran.setdefault(line["turn"], place)
    ran_mail = {mail: ran[row["turn_id"]] for mail, row in incoming.items() if row["turn_id"] in ran}
    witnesses = (("the ledger took", taken), ("the runtime answered", ran_mail), ("the smarthost got", arrived))
    for talk in evidence.conversations:
        for what, places in witnesses:
            seen = [mail for mail in talk.accepted if mail in places]
            if seen != sorted(seen, key=places.__getitem__):
                complaints.add(f"ORDER: {what} them in another one", talk.name)
        if len({incoming[mail]["thread"] for mail in talk.accepted if mail in incoming}) > 1:
            complaints.add("one conversation became several threads", talk.name)


def _mail_turns(evidence: Evidence) -> list[dict[str, Any]]:
    return [line for line in evidence.turns if not line["session"].startswith("probe:")]
