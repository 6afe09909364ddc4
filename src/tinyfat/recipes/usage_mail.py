"""The mail that tells an owner what their agent has spent: the same bytes for the same alert."""

from __future__ import annotations

import binascii
from datetime import datetime
from email.utils import format_datetime

from tinyfat.domain.mail.addresses import plain_address
from tinyfat.domain.mail.automatic import LOOP_HEADER
from tinyfat.domain.usage import money
from tinyfat.recipes.mail_fields import folded, mailbox_field, text_field

LEVELS = ("50", "80")


def usage_subject(agent: str, kind: str) -> str:
    if kind in LEVELS:
        return f"{agent} has used {kind} % of this month's allowance"
    return {
        "100": f"{agent} has used up this month's allowance",
        "day": f"{agent} has reached today's cap",
        "turn-money": f"{agent} was stopped: one answer cost too much",
        "turn-calls": f"{agent} was stopped: it called the model too often for one answer",
    }[kind]


def usage_text(agent: str, kind: str, spent: int, reserved: int, cap: int, amount: int) -> str:
    """Nano-dollars, but for "turn-calls", where `cap` is calls. `amount`: of the call that was refused; 0: none was."""
    sum_so_far = f"So far this month: {money(spent)}" + (
        f", and {money(reserved)} held for calls under way." if reserved else "."
    )
    could = f" A call that could have cost up to {money(amount)} was refused." if amount else ""
    happened, what_now = {
        "day": (
            f"{agent} has reached its cap of {money(cap)} a day.{could}",
            f"It goes on at midnight (UTC). To allow more: tinyfat cap set {agent} --day DOLLARS",
        ),
        "turn-money": (
            f"One answer of {agent} has reached its cap of {money(cap)}.{could}",
            f"The next question starts afresh. To allow more: tinyfat cap set {agent} --turn DOLLARS",
        ),
        "turn-calls": (
            f"{agent} has called its model {cap} times for one answer and was stopped: it was likely going in circles.",
            f"The next question starts afresh. To allow more: tinyfat cap set {agent} --turn-calls N",
        ),
        "100": (
            f"{agent} has reached its allowance of {money(cap)} this month.{could}",
            "Until the first of next month (UTC) it answers that it has none left. "
            f"To allow more now: tinyfat cap set {agent} --month DOLLARS",
        ),
    }.get(kind) or (
        f"{agent} has used {kind} % of its allowance of {money(cap)} this month.",
        f"It goes on as before. To allow more: tinyfat cap set {agent} --month DOLLARS",
    )
    return f"{happened}\n\n{sum_so_far}\n\n{what_now}\n\nWhat it went into: tinyfat usage {agent} --by turn"


def usage_mail(sender: str, owner: str, message_id: str, at: datetime, subject: str, text: str) -> bytes:
    """A complete message with CRLF line ends (RFC 5322). Nothing answers it by itself (RFC 3834).

    Raises ValueError for an address that cannot stand in a header.
    """
    if plain_address(sender) is None or plain_address(owner) is None:
        raise ValueError("An alert needs an agent's and an owner's address.")
    body = binascii.b2a_qp((text.rstrip("\n") + "\n").replace("\n", "\r\n").encode(), istext=True).decode("ascii")
    fields = [
        mailbox_field("From", "TinyFat", sender),
        mailbox_field("To", "", owner),
        text_field("Subject", subject),
        f"Date: {format_datetime(at)}",
        folded("Message-ID", [message_id]),
        "Auto-Submitted: auto-generated",
        "X-Auto-Response-Suppress: DR, RN, NRN, OOF, AutoReply",
        folded(LOOP_HEADER, [sender]),
        "MIME-Version: 1.0",
        "Content-Type: text/plain; charset=utf-8",
        "Content-Transfer-Encoding: quoted-printable",
    ]
    return "\r\n".join([*fields, "", body]).encode("ascii")
