"""Delivery reports (RFC 3464) and other multipart/report mail (RFC 6522): which of our mails came back, and why."""

from __future__ import annotations

import re
from dataclasses import dataclass

from tinyfat.domain.mail.headers import Headers, display_text, read_headers
from tinyfat.domain.mail.message_ids import message_ids
from tinyfat.domain.mail.mime import Part

GROUPS_MAX = 50  # recipients in one report
_STATUS_TYPES = ("message/delivery-status", "message/global-delivery-status")
_OTHER_ACTIONS = ("delayed", "delivered", "relayed", "expanded")  # RFC 3464 2.3.3
_FIELD = re.compile(rb"[\x21-\x39\x3b-\x7e]+[ \t]*:|[ \t]")
_BLANK_LINE = re.compile(rb"\r?\n[ \t]*\r?\n")
_STATUS = re.compile(r"[245]\.\d{1,3}\.\d{1,3}")


@dataclass(frozen=True, slots=True)
class Report:
    kind: str  # the report-type, e.g. "delivery-status"
    original_message_ids: tuple[str, ...]  # from the headers that came back
    status: str  # RFC 3463, e.g. "5.1.1"; "" where none is given
    action: str  # "failed", "delayed", "delivered", "relayed", "expanded" or ""
    recipient: str  # whom it did not reach; "" where it is not said

    @property
    def failed(self) -> bool:
        """Was it given up for good? An action that nobody knows ("failure", "expired") is no better news."""
        if self.action in _OTHER_ACTIONS:
            return False
        return self.status.startswith("5") or bool(self.action and not self.status.startswith("2"))

    @property
    def of_delivery(self) -> bool:
        """Is it about our mail's delivery, and not that somebody read it, or complains?"""
        return self.kind not in ("disposition-notification", "feedback-report")

    @property
    def says_what_became(self) -> bool:
        return bool(self.action or self.status)


def read_report(root: Part) -> Report | None:
    """The report this message is, or None. Some mail systems call it multipart/mixed."""
    is_report = root.media_type == "multipart/report"
    if not is_report and not any(part.media_type in _STATUS_TYPES for part in root.leaves()):
        return None
    original: list[str] = []
    groups: list[Headers] = []
    for part in root.leaves():
        if part.media_type in _STATUS_TYPES:
            groups += _groups(part.content())
        elif part.media_type in ("text/rfc822-headers", "message/rfc822", "message/global", "message/global-headers"):
            original += message_ids(read_headers(part.content()).headers.first("message-id"))
    kind = display_text(root.parameters.get("report-type", ""), 40).lower()
    # The first recipient that failed, else the first one spoken of.
    spoken_of = [group for group in groups if group.first("action") or group.first("status")]
    failed = [group for group in spoken_of if group.first("action").lower().startswith("failed")]
    group = (failed or spoken_of or [Headers()])[0]
    status = _STATUS.search(group.first("status")[:100])
    return Report(
        kind or ("report" if is_report else "delivery-status"),
        tuple(dict.fromkeys(original)),
        status[0] if status else "",
        display_text(group.first("action"), 20).lower(),
        _recipient(group),
    )


def _groups(content: bytes) -> list[Headers]:
    """The blocks of fields of a delivery-status part: one about the message, then one for each recipient.

    A diagnostic of several lines that nobody folded is left out, and the fields behind it are read.
    """
    groups: list[Headers] = []
    for block in _BLANK_LINE.split(content.strip(), maxsplit=2 * GROUPS_MAX)[: 2 * GROUPS_MAX]:
        lines = [line for line in block.split(b"\n") if _FIELD.match(line)]
        headers = read_headers(b"\n".join(lines)).headers
        if headers.fields and len(groups) < GROUPS_MAX:
            groups.append(headers)
    return groups


def _recipient(group: Headers) -> str:
    """The address of `Final-Recipient: rfc822; a@b`."""
    value = group.first("original-recipient") or group.first("final-recipient")
    _, semicolon, address = value.partition(";")
    return display_text(address if semicolon else value, 320).strip("<>")
