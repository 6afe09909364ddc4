"""What becomes of a mail: a pure rule over the mail and what is known about it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from tinyfat.domain.mail.automatic import role_reason
from tinyfat.domain.mail.message import Mail
from tinyfat.domain.mail.rhythm import Rhythm, loop_reason
from tinyfat.domain.mail.states import MessageState

# Two agents that answer each other, their marks lost on the way, stop here. Within the window of the rate caps.
OWN_AGENT_TURNS_MAX = 3
WORDS_CHARS_MAX = 2_000  # of a bounce's text, in which it says what became of our mail

_ARRIVED = re.compile(
    r"\s*(?:delivered|relayed|expanded|delayed|zugestellt|delivery (?:delayed|receipt|confirmation|report: ok)"
    r"|successful mail delivery|success notice|delivery status notification \((?:success|relay|delay|expand)"
    r"|mail delivery: (?:delayed|success)|warning: (?:message|could not send)|delayed mail"
    # Exchange in other languages: delayed, delivered, relayed.
    r"|zustellung verzögert|verzögert|übermittelt|weitergeleitet|livraison retardée|remise retardée|retardé"
    r"|remis|relayé|entrega (?:retrasada|atrasada|demorada)|retrasad[oa]|entregad[oa]|entregue|retransmit"
    r"|recapito (?:in )?ritard"
    r"|consegna ritardata|recapitat[oa]|inoltrat[oa]|bezorging (?:is )?vertraagd|vertraagd|afgeleverd|bezorgd|forsinket"
    r"|leverans(?:en)? (?:är )?försenad|försenad|levererat|leveret|levert|toimitus viivästy|toimitettu|opóźnion"
    r"|dostarczon"
    r"|opóźnienie|doručen|zpožd|задерж|доставлен|затрим|gecikti|teslim edildi|延迟|延遲|已送达|已传递|已送達"
    r"|配信の遅延|遅延"
    r"|配信済み|配信完了|지연|배달됨|전달됨)",
    re.IGNORECASE,
)
_NOT_YET = re.compile(
    r"warning only|will be retried|will (?:continue|keep) (?:to try|trying)|still trying|not yet been delivered"
    r"|do not need to resend|was successfully (?:delivered|relayed)|no action is required on your part",
    re.IGNORECASE,
)

NOT_ALLOWED = "is not on the allow-list"  # how the reason ends of a mail whose sender is proved, and a stranger


@dataclass(frozen=True, slots=True)
class RateCaps:
    """Turns within the caller's window; one more is held."""

    turns_in_thread_max: int = 20
    turns_of_sender_max: int = 60
    quick_answers_max: int = 0  # mail/rhythm.QUICK_ANSWERS_MAX; 0: the rhythm of a loop is not looked for


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
    named: bool = False  # the From address itself is the owner's, or on the allow-list: not by its domain alone
    to_return_path: bool = False  # it came to an address of ours that only envelopes have
    rhythm: Rhythm = field(default_factory=Rhythm)


@dataclass(frozen=True, slots=True)
class Judgement:
    state: MessageState
    reason: str  # for a person; "" where it is queued


def judge(mail: Mail, facts: Facts, caps: RateCaps) -> Judgement:
    """The first rule that holds decides.

    1. A bounce of ours is tied to its mail before anything else: it is automatic and unproved by nature.
    2. Automatic mail and an agent's mail to itself are ignored, whoever sent them: an answer to an automatic mail is
       how loops begin (RFC 3834 2), and asking for a proof first would fill the quarantine with newsletters. A
       role's address counts as automatic, unless it is the owner's or was allowed by name.
    3. What is not proved, and then who is not allowed, goes to quarantine: an unproved From could be anyone's, so
       the allow-list is asked only of a proved one.
    4. An agent of ours whose mail does not say it is automatic gets OWN_AGENT_TURNS_MAX answers: two agents that
       write to each other stop within three exchanges even where a relay strips our marks, the Message-ID included.
    5. Rate caps come last, so that mail that would not be answered anyway costs nobody a turn; with them, mail that
       has the rhythm of a loop (mail/rhythm).
    """
    if facts.is_bounce:
        return Judgement(MessageState.BOUNCE, _report_words(mail))
    if automatic := _automatic(mail, facts):
        return Judgement(MessageState.IGNORED, automatic)
    if not mail.from_address:
        return Judgement(
            MessageState.QUARANTINED,
            "its From does not name one address beyond doubt; an answer would go to "
            f"{mail.answer_to or 'the owner of the agent'}",
        )
    if not facts.proved:
        return Judgement(
            MessageState.QUARANTINED, f"no aligned SPF or DKIM pass proves that it is from {mail.from_address}"
        )
    if not facts.allowed:
        return Judgement(MessageState.QUARANTINED, f"{mail.from_address} {NOT_ALLOWED}")
    if facts.from_own_agent and facts.turns_of_sender >= OWN_AGENT_TURNS_MAX:
        return Judgement(
            MessageState.IGNORED, f"a loop: the agent {mail.from_address} had {facts.turns_of_sender} answers already"
        )
    if facts.turns_in_thread >= caps.turns_in_thread_max:
        return Judgement(MessageState.HELD, f"rate cap: this thread had {facts.turns_in_thread} turns already")
    if facts.turns_of_sender >= caps.turns_of_sender_max:
        return Judgement(MessageState.HELD, f"rate cap: this sender had {facts.turns_of_sender} turns already")
    if loop := loop_reason(facts.rhythm, caps.quick_answers_max):
        return Judgement(MessageState.HELD, loop)
    return Judgement(MessageState.QUEUED, "")


def came_back(mail: Mail, return_path: str) -> bool:
    """Is what came to a bounce address a mail system's, and not of somebody who is on holiday?

    A sealed address and the null path are enough: many a bounce is no report. Automatic answers go to the return path
    too (RFC 3834 4), most of them with a null one (RFC 5230 5.1), but they are a person's, by their From.
    """
    if mail.report is not None:
        return mail.report.of_delivery
    if return_path:
        return False
    return not mail.responder or not mail.from_address or bool(role_reason(mail.from_address))


def gave_up(mail: Mail) -> bool:
    """Does what came back say that our mail will not arrive? Yes, unless it says it is delayed or was delivered."""
    if mail.report is not None and mail.report.says_what_became:
        return mail.report.failed
    return not (_ARRIVED.match(mail.subject) or _NOT_YET.search(mail.text[:WORDS_CHARS_MAX]))


def _automatic(mail: Mail, facts: Facts) -> str:
    if facts.from_itself:
        return "automatic: it is from the agent's own address"
    if facts.null_return_path:
        return "automatic: null return path"
    if facts.to_return_path:
        return "automatic: it came to an address for bounces alone"
    if mail.automatic:
        return f"automatic: {mail.automatic}"
    role = "" if facts.named else role_reason(mail.from_address)
    return f"automatic: {role}" if role else ""


def _report_words(mail: Mail) -> str:
    if mail.report is None:
        return "a mail of ours came back"
    words = (mail.report.recipient, mail.report.action, mail.report.status)
    return "a mail of ours came back: " + (" ".join(word for word in words if word) or mail.report.kind)
