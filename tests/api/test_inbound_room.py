"""What a provider hears over HTTP where there is no room: try again later, or never."""

from __future__ import annotations

import time
from collections.abc import Sequence

import httpx2
import pytest
from fastapi import FastAPI

from tinyfat.api import inbound
from tinyfat.api.keys import inbound_signature
from tinyfat.ports.mail import DiskLow, Envelope, NeverRoom, NoRoom

SECRET, RAW = "s" * 32, b"Subject: x\r\n\r\nx\r\n"
ENVELOPE = Envelope("192.0.2.1", "", "a@example.org")
ADA = "ada@tinyfat.localhost"


class _Full:
    def __init__(self, why: NoRoom) -> None:
        self._why = why

    async def accept(self, envelope: Envelope, recipients: Sequence[str], raw: bytes) -> str:
        raise self._why


@pytest.mark.parametrize(
    ("why", "status", "again"),
    [(NoRoom("full"), 507, True), (DiskLow("disk"), 507, True), (NeverRoom("x"), 413, False)],
)
async def test_no_room_is_507_for_now_and_413_for_good(why: NoRoom, status: int, again: bool) -> None:
    app = FastAPI()
    app.state.intake, app.state.inbound_secret = _Full(why), SECRET
    app.include_router(inbound.router)
    at = str(int(time.time()))
    headers = {
        "TinyFat-Mail-From": ENVELOPE.mail_from,
        "TinyFat-Rcpt-To": ADA,
        "TinyFat-Client-Ip": ENVELOPE.client_ip,
        "TinyFat-Timestamp": at,
        "TinyFat-Signature": inbound_signature(SECRET, at, ENVELOPE, ADA, RAW),
    }
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url="http://t") as http:
        answer = await http.post("/mail/inbound", content=RAW, headers=headers)
    assert (answer.status_code, answer.json()["error"]) == (status, str(why))
    assert ("Retry-After" in answer.headers) is again
