"""A mail of our own to an owner, which answers none: the same bytes for the same notice."""

from __future__ import annotations

import binascii
from datetime import datetime
from email.utils import format_datetime

from tinyfat.domain.mail.addresses import plain_address
from tinyfat.domain.mail.automatic import LOOP_HEADER
from tinyfat.recipes.mail_fields import folded, mailbox_field, text_field


def notice_mail(sender: str, owner: str, message_id: str, at: datetime, subject: str, text: str) -> bytes:
    """A complete message with CRLF line ends (RFC 5322). Nothing answers it by itself (RFC 3834).

    Raises ValueError for an address that cannot stand in a header.
    """
    if plain_address(sender) is None or plain_address(owner) is None:
        raise ValueError("A notice needs an agent's and an owner's address.")
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
