"""Delivery reports (RFC 3464) and other multipart/report mail (RFC 6522): which of our mails came back, and why."""

from __future__ import annotations

import re
from dataclasses import dataclass

from tinyfat.domain.mail.headers import Headers, display_text, read_headers
from tinyfat.domain.mail.message_ids import message_ids
from tinyfat.domain.mail.mime import Part

GROUPS_MAX = 50  # recipients in one report
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
        """Was it given up for good?"""
        return self.action == "failed" or (not self.action and self.status.startswith("5"))


def read_report(root: Part) -> Report | None:
    """The report this message is, or None."""
    if root.media_type != "multipart/report":
        return None
    original: list[str] = []
    groups: list[Headers] = []
    for part in root.leaves():
        if part.media_type in ("message/delivery-status", "message/global-delivery-status"):
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
        kind or "report",
        tuple(dict.fromkeys(original)),
        status[0] if status else "",
        display_text(group.first("action"), 20).lower(),
        _recipient(group),
    )


def _groups(content: bytes) -> list[Headers]:
    """The blocks of fields of a delivery-status part: one about the message, then one for each recipient."""
    groups: list[Headers] = []
    position = 0
    while position < len(content) and len(groups) < GROUPS_MAX:
        block = read_headers(content, position)
        if block.body_start <= position:
            break
        if block.headers.fields:
            groups.append(block.headers)
        position = block.body_start
    return groups


def _recipient(group: Headers) -> str:
    """The address of `Final-Recipient: rfc822; a@b`."""
    value = group.first("original-recipient") or group.first("final-recipient")
    _, semicolon, address = value.partition(";")
    return display_text(address if semicolon else value, 320).strip("<>")
