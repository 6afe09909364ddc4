"""The operator's own Postgres goes away and comes back: nothing is accepted that is not kept, nothing kept is lost."""

from __future__ import annotations

import asyncio
from pathlib import Path

import aiosmtplib
import httpx2
import pytest

from tests.machine_speed import patient
from tests.running import OWNER, CommandError, TinyFat, letter, until
from tests.stories.test_http import signed
from tests.stories.town import Operator, PostOffice, new_id
from tinyfat.store.embedded import EmbeddedPostgres

pytestmark = [pytest.mark.story, pytest.mark.slow, pytest.mark.asyncio(loop_scope="session")]
SECRET = "a secret"
VERA = "vera@tinyfat.localhost"


async def test_while_the_database_is_away_peers_are_asked_to_come_again(tmp_path: Path) -> None:
    (tmp_path / "postgres").mkdir(mode=0o700)
    postgres = EmbeddedPostgres(tmp_path / "postgres")
    await postgres.start()
    try:
        async with (
            PostOffice() as office,
            TinyFat(
                tmp_path / "home",
                TINYFAT_DATABASE_URL=postgres.url,
                TINYFAT_SMARTHOST=f"127.0.0.1:{office.port}",
                TINYFAT_INBOUND_SECRET=SECRET,
                TINYFAT_MAIL_TRUST="127.0.0.0/8, ::1/128, 198.51.100.0/24",
            ) as tinyfat,
            Operator(tinyfat) as operator,
        ):
            await _story(tinyfat, office, operator, postgres)
    finally:
        await postgres.stop()
    assert "Traceback" not in tinyfat.log.read_text()


async def _story(tinyfat: TinyFat, office: PostOffice, operator: Operator, postgres: EmbeddedPostgres) -> None:
    await operator.make_agent("vera")
    slow = new_id()
    await tinyfat.send(letter("echo: sleep 1\nI was on my way.", to=VERA, message_id=slow))
    async with (
        httpx2.AsyncClient(
            base_url=f"http://127.0.0.1:{tinyfat.http_port}", trust_env=False, timeout=patient(30)
        ) as http,
        aiosmtplib.SMTP(hostname="127.0.0.1", port=tinyfat.smtp_port, start_tls=False) as waiting,
    ):
        message_id = new_id()
        raw = letter("Are you there?", to=VERA, message_id=message_id).as_bytes()
        await waiting.mail(OWNER)
        await waiting.rcpt(VERA)  # still known
        await postgres.stop()

        async def ready() -> bool:
            return (await http.get("/readyz")).status_code == 200

        async def not_ready() -> bool:
            return not await ready()

        # All at once: each of them gives the database some seconds before it says so.
        at_data, at_rcpt, handed_in, asked, _ = await asyncio.gather(
            waiting.data(raw),
            tinyfat.send(raw, to=VERA),
            http.post("/mail/inbound", content=raw, headers=signed(raw, secret=SECRET, to=VERA)),
            tinyfat.command("agent", "list"),
            # What was found when the agent was made may be said again for a second.
            until(not_ready, 30.0, "it is not ready"),
            return_exceptions=True,
        )
        assert isinstance(at_data, aiosmtplib.SMTPDataError) and at_data.code == 451
        assert isinstance(at_rcpt, aiosmtplib.SMTPRecipientsRefused) and at_rcpt.recipients[0].code == 451
        assert isinstance(handed_in, httpx2.Response) and handed_in.status_code == 503
        assert int(handed_in.headers["Retry-After"]) > 0
        readiness = await http.get("/readyz")
        assert readiness.status_code == 503 and "database" in readiness.json()["error"]
        assert (await http.get("/healthz")).status_code == 200
        assert isinstance(asked, CommandError) and asked.code == 1
        assert "database does not answer" in " ".join(asked.err.split())

        await postgres.start()
        await until(ready, 30.0, "it is ready again")
    await tinyfat.send(raw, to=VERA)
    await office.reply_to(message_id)
    await office.reply_to(slow)
    await operator.becomes((await operator.incoming("vera", slow))["id"], "answered")
    assert len(office.replies_to(message_id)) == 1 and len(office.replies_to(slow)) == 1
