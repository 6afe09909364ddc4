"""What becomes of a mail: a pure rule over the mail and what is known about it."""

from __future__ import annotations

from dataclasses import dataclass

from tinyfat.domain.mail.message import Mail
from tinyfat.domain.mail.states import MessageState

# Two agents that answer each other, their marks lost on the way, stop here. Within the window of the rate caps.
OWN_AGENT_TURNS_MAX = 3
MAIL_SYSTEMS = ("mailer-daemon", "postmaster")  # whom a bounce is from


@dataclass(frozen=True, slots=True)
class RateCaps:
    """Turns within the caller's window; one more is held."""

    turns_in_thread_max: int = 20
    turns_of_sender_max: int = 60


@dataclass(frozen=True, slots=True)
class Facts:
    """What the mail itself does not say."""

    null_return_path: bool  # MAIL FROM:<>
    proved: bool  # an aligned pass (RFC 7489), or it came from a trusted network
    allowed: bool  # the sender is on the agent's allow-list
    from_own_agent: bool  # the From address is an agent's of this TinyFat
    is_bounce: bool  # it came to a bounce address of ours whose seal holds, or its report names a mail of ours
    turns_in_thread: int  # within the window
    turns_of_sender: int  # to this agent, within the window
    from_itself: bool = False  # the From address is the very agent's


@dataclass(frozen=True, slots=True)
class Judgement:
    state: MessageState
    reason: str  # for a person; "" where it is queued


def judge(mail: Mail, facts: Facts, caps: RateCaps) -> Judgement:
    """The first rule that holds decides.

    1. A bounce of ours is tied to its mail before anything else: it is automatic and unproved by nature.
    2. Automatic mail and an agent's mail to itself are ignored, whoever sent them: an answer to an automatic mail is
       how loops begin (RFC 3834 2), and asking for a proof first would fill the quarantine with newsletters.
    3. What is not proved, and then who is not allowed, goes to quarantine: an unproved From could be anyone's, so
       the allow-list is asked only of a proved one.
    4. An agent of ours whose mail does not say it is automatic gets OWN_AGENT_TURNS_MAX answers: two agents that
       write to each other stop within three exchanges even where a relay strips our marks, the Message-ID included.
    5. Rate caps come last, so that mail that would not be answered anyway costs nobody a turn.
    """
    if facts.is_bounce:
        return Judgement(MessageState.BOUNCE, _report_words(mail))
    if automatic := _automatic(mail, facts):
        return Judgement(MessageState.IGNORED, automatic)
    if not mail.from_address:
        return Judgement(MessageState.QUARANTINED, "it has no single usable From address")
    if not facts.proved:
        return Judgement(
            MessageState.QUARANTINED, f"no aligned SPF or DKIM pass proves that it is from {mail.from_address}"
        )
    if not facts.allowed:
        return Judgement(MessageState.QUARANTINED, f"{mail.from_address} is not on the allow-list")
    if facts.from_own_agent and facts.turns_of_sender >= OWN_AGENT_TURNS_MAX:
        return Judgement(
            MessageState.IGNORED, f"a loop: the agent {mail.from_address} had {facts.turns_of_sender} answers already"
        )
    if facts.turns_in_thread >= caps.turns_in_thread_max:
        return Judgement(MessageState.HELD, f"rate cap: this thread had {facts.turns_in_thread} turns already")
    if facts.turns_of_sender >= caps.turns_of_sender_max:
        return Judgement(MessageState.HELD, f"rate cap: this sender had {facts.turns_of_sender} turns already")
    return Judgement(MessageState.QUEUED, "")


def came_back(mail: Mail, return_path: str) -> bool:
    """Does what came to a bounce address say that our mail did not arrive, and not that its reader is on holiday?

    Automatic answers go to the return path too (RFC 3834 4). A report says what it is; without one (qmail, old Exims)
    it is the mail system that writes, and nobody it could be answered to.
    """
    if mail.report is not None:
        return True
    writer = mail.from_address.rpartition("@")[0]
    return not return_path and writer in ("", *MAIL_SYSTEMS)


def _automatic(mail: Mail, facts: Facts) -> str:
    if facts.from_itself:
        return "automatic: it is from the agent's own address"
    if facts.null_return_path:
        return "automatic: null return path"
    return f"automatic: {mail.automatic}" if mail.automatic else ""


def _report_words(mail: Mail) -> str:
    if mail.report is None:
        return "a mail of ours came back"
    words = (mail.report.recipient, mail.report.action, mail.report.status)
    return "a mail of ours came back: " + (" ".join(word for word in words if word) or mail.report.kind)
