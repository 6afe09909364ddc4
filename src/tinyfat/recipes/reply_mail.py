"""The mail an agent answers with: a complete RFC 5322 message, the same bytes for the same order.

A retry after a crash must send the same mail: nothing here looks at a clock or draws a random number.
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass, replace
from datetime import datetime
from email.utils import format_datetime
from hashlib import sha256

from tinyfat.domain.failure_kinds import FailureId
from tinyfat.domain.failures import Failure
from tinyfat.domain.mail.addresses import plain_address
from tinyfat.domain.mail.attached import safe_filename, unique_names
from tinyfat.domain.mail.automatic import LOOP_HEADER
from tinyfat.domain.mail.charsets import clean_text, one_line
from tinyfat.domain.mail.message import Mail
from tinyfat.domain.mail.threads import in_reply_to_for_reply, references_for_reply
from tinyfat.domain.turns import Attachment
from tinyfat.recipes.mail_fields import filename_parameter, folded, mailbox_field, media_type_or_octets, text_field
from tinyfat.recipes.reply_html import reply_html

REPLY_TEXT_CHARS_MAX = 500_000
QUOTED_LINES_MAX = 10
QUOTED_LINE_CHARS_MAX = 200
PREFIXES_MAX = 50  # of a subject

# "Reply" as mail programs of other languages put it before a subject, with their counters: Re[2]:, AW:, Antw:, 回复：
_REPLY_WORD = (
    r"re\d{0,3}|r|aw|antw|antwort|sv|svar|vs|odp|odpowiedź|odpověď|odpoveď|odg|res|resp|reply|ref|rép|réf|ré|rep|rif"
    "|riferimento|ynt|yan|yanıt|vá|vál|válasz|atb|atbilde|ats|bls|balas|răsp|răspuns|rasp|respuesta|risposta|resposta"
    "|réponse|antwoord|betr|ang|vastaus|απ|απάντηση|απαντηση|σχετ|отв|ответ|на|отг|отговор|відп|відповідь|адказ"
    "|תשובה|תגובה|השב|رد|پاسخ|जवाब|ตอบ|ตอบกลับ|trả lời|回复|回覆|回復|答复|答覆|返信|답장|회신|回信"
)
_FORWARD_WORD = (
    "fwd?|wg|tr|rv|renv|reenv|vb|vl|i|inoltro|fs|doorst|doorgest|enc|pd|vs fwd|trs|trus|yml|pār|pers|ed|i̇lt|ilt|İlt|πρθ"
    "|转发|轉寄|轉發|转寄|転送|전달|пересл|переслано|пер|препр|fwrd|továbbítás|prosl|הועבר|إعادة توجيه|chuyển tiếp"
    "|videresendt|vid"
)
_REPLY = re.compile(rf"(?:{_REPLY_WORD})\s?(?:\[\d+\]|\(\d+\)|[\^*-]?\d\d?)?\.?\s?[:：]\s*", re.IGNORECASE)
_FORWARD = re.compile(rf"(?:{_FORWARD_WORD})\s?(?:\[\d+\])?\s?[:：]\s*", re.IGNORECASE)
_MESSAGE_ID = re.compile(r"<[!-;=?-~]{1,900}>")


class ReplyRefused(ValueError):
    """This reply cannot be written: it has nobody to go to, or an id that is none."""


@dataclass(frozen=True, slots=True)
class ReplyOrder:
    """What a reply is made from, and nothing else."""

    mail: Mail  # the one answered
    agent_name: str  # for people
    agent_address: str  # name[+tag]@domain
    message_id: str  # threads.reply_message_id
    at: datetime  # with its zone: the Date, fixed when the turn ended
    text: str  # Markdown
    attachments: tuple[Attachment, ...] = ()
    recipient: str = (
        ""  # the mail's From where empty. No proof covers a Reply-To: following one is the caller's to judge
    )


def compose_reply(order: ReplyOrder) -> bytes:
    """The message with CRLF line ends, ASCII throughout, no line over 998. Raises ReplyRefused."""
    text = _bounded(clean_text(order.text)).strip("\n")
    attribution, quoted = _quotation(order.mail)
    seed = order.message_id
    content = _alternative(seed, _plain_text(text, attribution, quoted), reply_html(text, attribution, quoted))
    if order.attachments:
        content = _mixed(seed, [content, *_attachment_parts(order.attachments)])
    return "\r\n".join([*_fields(order), content]).encode("ascii")


def failure_reply(order: ReplyOrder, failure: Failure) -> bytes:
    """The bad news, in the words of the list of failures alone. It has the turn's one Message-ID: one is sent."""
    words, help_ = failure.words(order.agent_name), failure.help(order.agent_name)
    stopped = "" if failure.id is FailureId.SILENT else f"{Failure(FailureId.STOPPED).words()}\n\n"
    return compose_reply(replace(order, text=f"{stopped}{words}\n\n{help_}", attachments=()))


def with_note(text: str, note: Failure) -> str:
    """An answer that is not whole says so under its own text."""
    said = f"[{note.text()}]"
    return f"{text.rstrip()}\n\n{said}" if text.strip() else said


def reply_subject(subject: str) -> str:
    """`Re:` once, whatever pile there was: "AW: Re: Fwd: Re[2]: x" becomes "Re: Fwd: x"."""
    rest, forwarded = one_line(subject), ""
    for _ in range(PREFIXES_MAX):
        if match := _REPLY.match(rest):
            rest = rest[match.end() :]
        elif match := _FORWARD.match(rest):
            forwarded = forwarded or match[0].strip() + " "
            rest = rest[match.end() :]
        else:
            break
    return f"Re: {forwarded}{rest.strip() or '(no subject)'}"


def is_reply_subject(subject: str) -> bool:
    return bool(_REPLY.match(one_line(subject)))


def _fields(order: ReplyOrder) -> list[str]:
    sender = plain_address(order.agent_address)
    recipient = plain_address(order.recipient or order.mail.from_address)
    if sender is None:
        raise ReplyRefused(f"The agent's address {order.agent_address!r} cannot stand in a From header.")
    if recipient is None:
        raise ReplyRefused(f"A reply of {sender} has nobody to go to: the mail it answers has no usable From address.")
    if not _MESSAGE_ID.fullmatch(order.message_id):
        raise ReplyRefused(f"{order.message_id!r} is not a Message-ID; use threads.reply_message_id.")
    in_reply_to = in_reply_to_for_reply(order.mail)
    references = references_for_reply(order.mail)
    return [
        mailbox_field("From", order.agent_name, sender),
        mailbox_field("To", order.mail.from_name if recipient == order.mail.from_address else "", recipient),
        text_field("Subject", reply_subject(order.mail.subject)),
        f"Date: {format_datetime(order.at)}",
        folded("Message-ID", [order.message_id]),
        *([folded("In-Reply-To", [in_reply_to])] if in_reply_to else []),
        *([folded("References", references)] if references else []),
        "Auto-Submitted: auto-replied",  # RFC 3834 5
        # Everything but NDR: a bounce must come back, so that it can be shown with its turn (MS-OXCMAIL 2.2.3.2.14).
        "X-Auto-Response-Suppress: DR, RN, NRN, OOF, AutoReply",
        folded(LOOP_HEADER, [sender]),
        "MIME-Version: 1.0",
    ]


def _bounded(text: str) -> str:
    if len(text) <= REPLY_TEXT_CHARS_MAX:
        return text
    return with_note(text[:REPLY_TEXT_CHARS_MAX], Failure(FailureId.ANSWER_CUT))


def _quotation(mail: Mail) -> tuple[str, list[str]]:
    """Who wrote what, short: the sender's own words, without what they quoted themselves."""
    own = [line.rstrip() for line in clean_text(mail.text).split("\n") if not line.startswith(">")]
    while own and not own[0]:
        own.pop(0)
    while own and not own[-1]:
        own.pop()
    if not own:
        return "", []
    quoted = [line[:QUOTED_LINE_CHARS_MAX] for line in own[:QUOTED_LINES_MAX]]
    if len(own) > QUOTED_LINES_MAX or quoted != own[:QUOTED_LINES_MAX]:
        quoted[-1] = f"{quoted[-1][: QUOTED_LINE_CHARS_MAX - 6]} [...]"
    who, date = one_line(mail.from_name) or mail.from_address or "you", one_line(mail.date)
    return (f"On {date}, {who} wrote:" if date else f"{who} wrote:"), quoted


def _plain_text(text: str, attribution: str, quoted: list[str]) -> str:
    if not attribution:
        return text
    return "\n".join([text, "", attribution, *(f"> {line}".rstrip() for line in quoted)])


def _alternative(seed: str, plain: str, html: str) -> str:
    parts = [_text_part("plain", plain), _text_part("html", html)]
    return _multipart("alternative", seed, parts)


def _mixed(seed: str, parts: list[str]) -> str:
    return _multipart("mixed", seed, parts)


def _multipart(kind: str, seed: str, parts: list[str]) -> str:
    # "=_" can stand in neither quoted-printable nor base64, so no content can hold this boundary (RFC 2045 6.7).
    boundary = f"=_{sha256(f'{kind}:{seed}'.encode('utf-8', 'replace')).hexdigest()[:40]}"
    inner = "".join(f"--{boundary}\r\n{part}\r\n" for part in parts)
    return f'Content-Type: multipart/{kind};\r\n boundary="{boundary}"\r\n\r\n{inner}--{boundary}--\r\n'


def _text_part(kind: str, text: str) -> str:
    # With a last line end, binascii takes CRLF for the line end everywhere, its own soft ones included.
    lines = (text.rstrip("\n") + "\n").replace("\n", "\r\n")
    encoded = binascii.b2a_qp(lines.encode("utf-8", "replace"), istext=True).decode("ascii")
    unmunged = re.sub(r"(?m)^From ", "=46rom ", encoded)  # mbox programs would write ">From "
    fields = f"Content-Type: text/{kind}; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable"
    return f"{fields}\r\n\r\n{unmunged.removesuffix(chr(10)).removesuffix(chr(13))}"


def _attachment_parts(attachments: tuple[Attachment, ...]) -> list[str]:
    given = [safe_filename(one_line(one.filename)) or f"attachment-{n}" for n, one in enumerate(attachments, 1)]
    names = unique_names(given)
    return [_attachment_part(one, name) for one, name in zip(attachments, names, strict=True)]


def _attachment_part(attachment: Attachment, name: str) -> str:
    content = base64.encodebytes(attachment.content).decode("ascii").rstrip("\n").replace("\n", "\r\n")
    disposition = folded("Content-Disposition", ["attachment;", filename_parameter("filename", name)])
    media_type = media_type_or_octets(attachment.media_type)
    charset = "; charset=utf-8" if media_type.startswith("text/") and _is_utf8(attachment.content) else ""
    return f"Content-Type: {media_type}{charset}\r\n{disposition}\r\nContent-Transfer-Encoding: base64\r\n\r\n{content}"


def _is_utf8(content: bytes) -> bool:
    try:
        content.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True
