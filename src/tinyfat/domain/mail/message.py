"""Any bytes as a mail: `read_mail` never raises, and takes time in proportion to what it is given."""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass
from hashlib import sha256

from tinyfat.domain.mail.addresses import plain_address
from tinyfat.domain.mail.attached import attachments_of
from tinyfat.domain.mail.automatic import automatic_mail
from tinyfat.domain.mail.body_text import text_of
from tinyfat.domain.mail.headers import Headers, decode_words, display_text, read_headers
from tinyfat.domain.mail.mailboxes import Mailbox, MailboxList, read_mailboxes
from tinyfat.domain.mail.message_ids import MISSING_ID_DOMAIN, derived_message_id, message_ids
from tinyfat.domain.mail.mime import Part, read_structure
from tinyfat.domain.mail.parts_as_meant import as_meant
from tinyfat.domain.mail.reports import Report, read_report
from tinyfat.domain.turns import Attachment

_LIKE_ADDRESS = re.compile(r"[\w.!#$%&'*+/=?^`{|}~-]{1,64}@[\w.-]{1,253}")
SUBJECT_CHARS_MAX = 500
DOUBTFUL_CHARS_MAX = 4_000  # of a From that names nobody beyond doubt, in which an address is looked for
DATE_CHARS_MAX = 100

__all__ = ["MISSING_ID_DOMAIN", "Mail", "read_mail", "sender_of"]


@dataclass(frozen=True, slots=True)
class Mail:
    """What a message says of itself. Nothing here is proved."""

    message_id: str  # in angle brackets; derived from the content where the mail has none
    in_reply_to: str  # one id or ""
    references: tuple[str, ...]  # oldest first
    from_address: str  # lower case; "" unless there is exactly one, beyond doubt
    from_name: str
    reply_to: tuple[str, ...]  # addresses; replies go to `from_address`, whose proof does not cover this field
    to: tuple[Mailbox, ...]
    cc: tuple[Mailbox, ...]
    subject: str  # one line, RFC 2047 undone
    date: str  # as it stood; a text, not a time
    text: str  # at most body_text.TEXT_BYTES_MAX and a note
    attachments: tuple[Attachment, ...]
    defects: tuple[str, ...]  # words such as "boundary-unclosed", for the operator
    automatic: str = ""  # why it is a machine's; "" where it is not known to be
    responder: bool = False  # it is a program's answer to one person, such as an absence note
    report: Report | None = None
    answer_to: str = ""  # to whom a person who releases it lets it be answered, though `from_address` is ""


def read_mail(raw: bytes) -> Mail:
    """Read a message (RFC 5322, MIME). Never raises: whatever cannot be read is said in `defects`."""
    try:
        return _read(raw)
    except Exception as error:  # the promise above; the corpus and the property tests show that nothing gets here
        return _unreadable(raw, error)


def sender_of(headers: Headers) -> tuple[Mailbox, tuple[str, ...]]:
    """The one mailbox of the one From field, and the defects that leave its address empty.

    Strict on purpose: every program that reads a doubtful From takes another address out of it, and an allow-list
    stands on this one.
    """
    values = headers.all("from")
    if not values:
        return Mailbox("", ""), ("from-missing",)
    listed = read_mailboxes(values[0])
    name = next((mailbox.name for mailbox in listed.mailboxes), "")
    if len(values) > 1:
        return Mailbox(name, ""), ("from-repeated",)
    if len({one.address for one in listed.mailboxes}) != 1 or listed.doubtful or "\0" in values[0] or "\r" in values[0]:
        return Mailbox(name, ""), ("from-unusable",)
    return listed.mailboxes[0], ()


def likeliest_sender(headers: Headers) -> str:
    """Of a From in doubt: the address that Sender names too (RFC 5322 3.6.2), else the first that stands in it; of one
    that has none, Sender's, then Reply-To's, or ""."""
    values = headers.all("from")[:5]
    named = [
        address
        for value in values
        for text in (value, decode_words(value[:DOUBTFUL_CHARS_MAX]))
        for address in _addresses(text)
    ]
    sender = _addresses(headers.first("sender"))
    common = next((one for one in sender if one in named), "")
    return common or next(iter([*named, *sender, *_addresses(headers.first("reply-to"))]), "")


def _addresses(text: str) -> list[str]:
    """What stands where an address is due; where nothing usable does, what looks like one."""
    text = text[:DOUBTFUL_CHARS_MAX]
    found = [mailbox.address for mailbox in read_mailboxes(text).mailboxes if mailbox.address]
    looks = (plain_address(match[0].rstrip(".")) for match in _LIKE_ADDRESS.finditer(text))
    return found or [one for one in looks if one]


def _in_lines(raw: bytes) -> bytes:
    """A mail in UTF-16, or with carriage returns alone for line ends, as one whose lines can be told apart."""
    if raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raw = raw.decode("utf-16", "replace").encode("utf-8", "replace")
    return raw if b"\n" in raw else raw.replace(b"\r", b"\n")


def _read(raw: bytes) -> Mail:
    raw = _in_lines(raw)
    structure = read_structure(raw)
    root, headers = as_meant(structure.root), structure.root.headers
    subject = display_text(headers.first_in("subject", _charset(root)), SUBJECT_CHARS_MAX)
    automatic = automatic_mail(structure.root, subject)
    sender, sender_defects = sender_of(headers)
    message_id, id_defects = _message_id(raw, headers)
    parents = message_ids("\n".join(headers.all("in-reply-to")[:5]))
    forebears = message_ids("\n".join(headers.all("references")[:5]))
    return Mail(
        message_id=message_id,
        in_reply_to=next(iter(parents), ""),
        references=tuple(forebears or (parents if len(parents) > 1 else ())),  # several parents: RFC 5322 3.6.4
        from_address=sender.address,
        from_name=sender.name,
        reply_to=tuple(mailbox.address for mailbox in _mailboxes(headers, "reply-to") if mailbox.address),
        to=_mailboxes(headers, "to"),
        cc=_mailboxes(headers, "cc"),
        subject=subject,
        date=display_text(headers.first("date"), DATE_CHARS_MAX),
        text=text_of(root),
        attachments=attachments_of(root),
        defects=(*structure.defects, *sender_defects, *id_defects),
        automatic=automatic.reason if automatic else "",
        responder=bool(automatic and automatic.responder),
        report=read_report(structure.root),
        answer_to="" if sender.address else likeliest_sender(headers),
    )


def _charset(root: Part) -> str:
    """Of the first text that names one."""
    texts = (part.parameters.get("charset", "") for part in root.leaves() if part.media_type.startswith("text/"))
    return next((charset for charset in texts if charset), "")


def _mailboxes(headers: Headers, name: str) -> tuple[Mailbox, ...]:
    lists: list[MailboxList] = [read_mailboxes(value) for value in headers.all(name)[:5]]
    return tuple(mailbox for one in lists for mailbox in one.mailboxes if mailbox.name or mailbox.address)


def _message_id(raw: bytes, headers: Headers) -> tuple[str, tuple[str, ...]]:
    values = headers.all("message-id")
    repeated = ("message-id-repeated",) if len(values) > 1 else ()
    if values and (found := message_ids(values[0])):
        return found[0], repeated
    body = raw[read_headers(raw).body_start :]
    derived = derived_message_id(headers.first("from"), headers.first("date"), headers.first("subject"), body)
    return derived, (*repeated, "message-id-unusable" if values else "message-id-missing")


def _unreadable(raw: bytes, error: Exception) -> Mail:
    return Mail(
        message_id=f"<{sha256(raw).hexdigest()}@{MISSING_ID_DOMAIN}>",
        in_reply_to="",
        references=(),
        from_address="",
        from_name="",
        reply_to=(),
        to=(),
        cc=(),
        subject="",
        date="",
        text="",
        attachments=(Attachment("message.eml", "message/rfc822", raw),),
        defects=("unreadable", type(error).__name__),
    )
