"""Is this mail a machine's? Then it is never answered (RFC 3834 2, and what mail systems do in practice)."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from functools import cache, lru_cache

from tinyfat.domain.mail.automatic_marks import MARKS, NO_MARKS, ROLES, SUBJECTS, Kind, Mark
from tinyfat.domain.mail.headers import Headers, parse_parameters
from tinyfat.domain.mail.mime import Part
from tinyfat.domain.mail.parts_as_meant import is_tnef
from tinyfat.domain.mail.tnef import read_tnef

LOOP_HEADER = "X-TinyFat-Loop"
RECEIVED_MAX = 25  # RFC 5321 6.3 asks for at least 100 in a relay; an answer is due long before
CALENDAR_BYTES_MAX = 4_000  # where an invitation's METHOD stands

# threads.reply_message_id. Relays take marks off that they do not know, but seldom the Message-ID.
_AGENTS_MESSAGE_ID = re.compile(r"\s*<turn\.[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}@")
_NOTHING = ("", "no", "none", "false", "0")
_SEPARATORS = re.compile(r"[-_.]")
_BOUNCES = re.compile(r"bounces?[-_.=].+|.+[-_.]bounces?|microsoftexchange[0-9a-f]{32}")
_NO_REPLY_INSIDE = re.compile(r"[-_.+](?:no|do[-_.]?not|dont|never)[-_.]?repl(?:y|ies)(?:[-_.\d].*)?")
_COMMENT = re.compile(r"\([^()]*\)")
_REPORTS = ("multipart/report", "message/delivery-status", "message/global-delivery-status", "message/feedback-report")
# What gateways put before a subject.
_GATEWAY = r"(?:[\[(*]+\s*(?:ext(?:ern(?:al|e|o|er)?)?(?: (?:e-?mail|sender))?|spam|suspected spam|caution)\s*[\])*:]+)"
_CALENDARS = ("text/calendar", "application/ics")
_CALENDAR_REPLY = re.compile(rb"(?im)^METHOD:\s*REPLY\s*$")


@dataclass(frozen=True, slots=True)
class Automatic:
    reason: str  # for a person to read
    responder: bool = False  # a program's answer to one person, such as an absence note


def automatic_mail(root: Part, subject: str) -> Automatic | None:
    """Why a mail counts as automatic; None where it does not. The null return path is the caller's.

    X-Auto-Response-Suppress is no mark: it asks others for silence (MS-OXCMAIL 2.2.3.2.14), and people's mail has it.
    """
    headers = root.headers
    submitted = [_first_word(value) for value in headers.all("auto-submitted")]
    if auto_submitted := next((word for word in submitted if word not in ("", "no")), ""):
        return Automatic(f"Auto-Submitted: {auto_submitted}", auto_submitted == "auto-replied")
    names = list(headers.names())
    if LOOP_HEADER.lower() in names:
        return Automatic(f"{LOOP_HEADER}: it is a TinyFat agent's own")
    if _AGENTS_MESSAGE_ID.match(headers.first("message-id")):
        return Automatic("a TinyFat agent's own, by its Message-ID")
    if sign := _marked(headers, names) or _by_its_parts(root):
        return sign
    if begins := _subject_pattern().match(unicodedata.normalize("NFC", subject)):
        return Automatic(f"an automatic answer, by its subject ({begins[0].strip(' :：-–—[]()')})", responder=True)
    hops = sum(1 for name in names if name == "received")
    return Automatic(f"{hops} Received headers: it is going in circles") if hops > RECEIVED_MAX else None


def role_reason(address: str) -> str:
    """Why nobody reads what is sent to this address; "" where somebody may."""
    whole = address.rpartition("@")[0].lower()
    local = whole.partition("+")[0]
    joined = _SEPARATORS.sub("", local)
    if _role_pattern().fullmatch(joined) or _BOUNCES.fullmatch(local) or _NO_REPLY_INSIDE.search(whole):
        return f"a role's address ({address})"
    return ""


def _marked(headers: Headers, names: list[str]) -> Automatic | None:
    for name in names:
        for mark in _marks_of(name):
            if found := next((word for value in headers.all(name) if (word := _holds(mark, value)) is not None), None):
                return Automatic(_words(mark, name, found), mark.kind is Kind.RESPONDER)
    return None


def _holds(mark: Mark, value: str) -> str | None:
    word = _first_word(value)
    if not mark.values:
        return None if word in _NOTHING[1:] else word or "set"
    return word if word.startswith(mark.values) else None


def _words(mark: Mark, name: str, value: str) -> str:
    if mark.kind is Kind.LIST and not mark.values:
        return f"a mailing list ({name.title()})"
    shown = "-".join(part.upper() if part == "x" else part.title() for part in name.split("-"))
    return f"{shown}: {value}"


def _by_its_parts(root: Part) -> Automatic | None:
    media_type = parse_parameters(root.headers.first("content-type"))[0]
    if media_type in _REPORTS:
        return Automatic(f"a report ({media_type})")
    for part in root.leaves():
        if part.media_type == "message/disposition-notification":
            return Automatic("a receipt (RFC 8098)")
        if is_tnef(part) and (why := _by_its_class(part)):
            return why
        if part.media_type in _CALENDARS and _is_calendar_reply(part):
            return Automatic("an answer to an invitation (RFC 5546 3.2.3)", responder=True)
    return None


def _by_its_class(part: Part) -> Automatic | None:
    """Outlook's classes of messages (MS-OXCMSG, MS-OXTNEF 2.1.3.3.10 for their old names)."""
    packed = read_tnef(part.content())
    kind = packed.message_class if packed else ""
    if kind.startswith(("ipm.schedule.meeting.resp", "ipm.microsoft schedule.mtgresp")):
        return Automatic("an answer to an invitation (MS-OXOCAL)", responder=True)
    if kind.startswith("ipm.note.rules."):
        return Automatic("an answer of a rule or an absence note (MS-OXORULE)", responder=True)
    if kind.startswith(("report.", "ipm.microsoft mail.read receipt", "ipm.microsoft mail.non-delivery")):
        return Automatic(f"a report ({kind})")
    return None


def _is_calendar_reply(part: Part) -> bool:
    method = part.parameters.get("method", "").strip().lower()
    return method == "reply" if method else bool(_CALENDAR_REPLY.search(part.content()[:CALENDAR_BYTES_MAX]))


def _first_word(value: str) -> str:
    """RFC 3834 5.1: the keyword, without comments and parameters."""
    plain = re.sub(r"<\s+>", "<>", _COMMENT.sub(" ", value[:1000])).strip().lower()
    words = re.split(r"[;,\s(]", plain, maxsplit=1)
    return words[0][:40]


@lru_cache(maxsize=1_024)  # fields' names are at most 1,000 characters, and mostly the same few
def _marks_of(name: str) -> tuple[Mark, ...]:
    exact, patterns = _marks()
    if name in exact:
        return exact[name]
    joined = _SEPARATORS.sub("", name)
    return tuple(mark for pattern, mark in patterns if pattern.fullmatch(name) or pattern.fullmatch(joined))


@cache
def _marks() -> tuple[dict[str, tuple[Mark, ...]], tuple[tuple[re.Pattern[str], Mark], ...]]:
    """Those whose field's name is given whole, and those of a kind of names."""
    fields = dict.fromkeys(mark.field.lower() for mark in MARKS if "*" not in mark.field)
    exact = {field: tuple(mark for mark in MARKS if mark.field.lower() == field) for field in fields}
    exact |= {field.lower(): () for field in NO_MARKS}
    return exact, tuple((_field_pattern(mark.field.lower()), mark) for mark in MARKS if "*" in mark.field)


def _field_pattern(field: str) -> re.Pattern[str]:
    """`List-*` needs its hyphen; where a word stands in the middle, separators do not count."""
    words = field if not field.startswith("*") else _SEPARATORS.sub("", field)
    return re.compile(re.escape(words).replace(r"\*", ".*"))


@cache
def _subject_pattern() -> re.Pattern[str]:
    """Anchored, and the phrase must end there: "Automatic reply settings?" is a person's question."""
    phrases = sorted({phrase for all_of in SUBJECTS.values() for phrase in all_of}, key=len, reverse=True)
    either = "|".join(re.escape(phrase).replace("'", "['’]") for phrase in phrases)
    return re.compile(
        rf"\s*(?:{_GATEWAY}\s*){{0,3}}(?:[\[(【<*]+\s*(?:{either})\s*[\])】>*]+"
        rf"|(?:{either})(?:\s+(?:to|from|re))?\s*(?:[:：]|[-–—]\s|[!.]*\s*$))",
        re.IGNORECASE,
    )


@cache
def _role_pattern() -> re.Pattern[str]:
    plain = (re.escape(_SEPARATORS.sub("", role)) for role in ROLES)
    return re.compile("|".join(role.replace(r"\*", ".*") for role in plain))
