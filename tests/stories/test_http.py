"""The HTTP surface: mail handed in by a provider, health, and whom the operator's API knows."""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import AsyncIterator

import httpx2
import pytest
import pytest_asyncio
import websockets

from tests.running import OWNER, letter
from tests.stories.conftest import HEARD_FROM, INBOUND_SECRET, SIZE_MAX
from tests.stories.town import House, new_id
from tinyfat.cli.home import Home

pytestmark = [pytest.mark.story, pytest.mark.slow, pytest.mark.asyncio(loop_scope="session")]
PAULA = "paula@tinyfat.localhost"


@pytest_asyncio.fixture(scope="session", loop_scope="session", autouse=True)
async def paula(house: House) -> None:
    await house.operator.make_agent("paula")


@pytest_asyncio.fixture(loop_scope="session")
async def http(house: House) -> AsyncIterator[httpx2.AsyncClient]:
    async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{house.tinyfat.http_port}", trust_env=False) as client:
        yield client


def signed(
    raw: bytes, *, secret: str = INBOUND_SECRET, at: float | None = None, to: str = PAULA, mail_from: str = OWNER,
    client_ip: str = HEARD_FROM,
) -> dict[str, str]:  # fmt: skip
    """The headers, signed as docs/inbound-http.md says and by nothing of ours."""
    timestamp = str(int(at if at is not None else time.time()))
    head = f"{timestamp}\n{mail_from}\n{to}\n{client_ip}\n\n".encode()
    return {
        "Content-Type": "message/rfc822",
        "TinyFat-Mail-From": mail_from,
        "TinyFat-Rcpt-To": to,
        "TinyFat-Client-Ip": client_ip,
        "TinyFat-Timestamp": timestamp,
        "TinyFat-Signature": "v1=" + hmac.new(secret.encode(), head + raw, hashlib.sha256).hexdigest(),
    }


def mail(message_id: str) -> bytes:
    return letter("By a webhook.", to=PAULA, message_id=message_id).as_bytes()


async def test_a_signed_mail_is_kept_and_answered(house: House, http: httpx2.AsyncClient) -> None:
    message_id = new_id()
    answer = await http.post("/mail/inbound", content=mail(message_id), headers=signed(mail(message_id)))
    assert answer.status_code == 202
    assert answer.json()["kept"] == (await house.operator.incoming("paula", message_id))["id"]
    await house.office.reply_to(message_id)


async def test_handed_in_twice_or_by_both_ways_it_is_one_mail(house: House, http: httpx2.AsyncClient) -> None:
    message_id = new_id()
    for _ in range(2):
        answer = await http.post("/mail/inbound", content=mail(message_id), headers=signed(mail(message_id)))
        assert answer.status_code == 202
    await house.tinyfat.send(mail(message_id), to=PAULA)
    await house.office.reply_to(message_id)
    await house.operator.incoming("paula", message_id)


REFUSED = {
    "another secret": {"secret": "a guess"},
    "no secret": {"secret": ""},
    "an old signature": {"at": time.time() - 3600},
    "one from the future": {"at": time.time() + 3600},
}


@pytest.mark.parametrize("how", REFUSED.values(), ids=REFUSED.keys())
async def test_a_signature_that_does_not_fit_is_refused(
    house: House, http: httpx2.AsyncClient, how: dict[str, object]
) -> None:
    message_id = new_id()
    answer = await http.post("/mail/inbound", content=mail(message_id), headers=signed(mail(message_id), **how))  # type: ignore[arg-type]
    assert answer.status_code == 401 and "inbound-http.md" in answer.json()["error"]
    assert message_id not in [m["message_id"] for m in await house.operator.mail("paula")]


@pytest.mark.parametrize(
    "changed",
    [{"TinyFat-Rcpt-To": "otto@tinyfat.localhost"}, {"TinyFat-Mail-From": "x@y.z"}, {"TinyFat-Client-Ip": "10.0.0.1"},
     {"TinyFat-Helo": "x"}, {"TinyFat-Timestamp": "1"}, {"TinyFat-Signature": ""}, {"TinyFat-Timestamp": "٣"}],
)  # fmt: skip
async def test_no_header_of_a_signed_mail_can_be_changed(http: httpx2.AsyncClient, changed: dict[str, str]) -> None:
    raw = mail(new_id())
    headers = {name: value.encode() for name, value in {**signed(raw), **changed}.items()}
    assert (await http.post("/mail/inbound", content=raw, headers=headers)).status_code == 401


async def test_without_a_signature_or_with_another_body_it_is_refused(http: httpx2.AsyncClient) -> None:
    raw = mail(new_id())
    assert (await http.post("/mail/inbound", content=raw)).status_code == 401
    assert (await http.post("/mail/inbound", content=raw + b"x", headers=signed(raw))).status_code == 401


async def test_where_no_secret_is_set_nobody_hands_in_mail(hasty: House) -> None:
    raw = mail(new_id())
    async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{hasty.tinyfat.http_port}", trust_env=False) as client:
        for secret in ("", INBOUND_SECRET):
            answer = await client.post("/mail/inbound", content=raw, headers=signed(raw, secret=secret))
            assert answer.status_code == 401 and "TINYFAT_INBOUND_SECRET" in answer.json()["error"]


async def test_an_unknown_recipient_is_404(http: httpx2.AsyncClient) -> None:
    raw = mail(new_id())
    answer = await http.post("/mail/inbound", content=raw, headers=signed(raw, to="nobody@tinyfat.localhost"))
    assert answer.status_code == 404 and "nobody@tinyfat.localhost" in answer.json()["error"]


async def test_a_mail_over_the_size_is_413(http: httpx2.AsyncClient) -> None:
    raw = mail(new_id()) + b"x" * SIZE_MAX
    assert (await http.post("/mail/inbound", content=raw, headers=signed(raw))).status_code == 413


async def test_an_empty_one_is_400(http: httpx2.AsyncClient) -> None:
    assert (await http.post("/mail/inbound", content=b"", headers=signed(b""))).status_code == 400


async def test_a_stranger_by_http_goes_to_quarantine(house: House, http: httpx2.AsyncClient) -> None:
    message_id = new_id()
    raw = letter("Hi.", to=PAULA, sender="stranger@elsewhere.example", message_id=message_id).as_bytes()
    await http.post("/mail/inbound", content=raw, headers=signed(raw))
    assert (await house.operator.incoming("paula", message_id))["state"] == "quarantined"


@pytest.mark.parametrize(
    "client_ip",
    ["", "127.0.0.1", "::1", "::ffff:127.0.0.1", "::127.0.0.1", "10.1.2.3", "0.0.0.0", "localhost",
     "198.51.100.7, 1.1.1.1", "198.51.100.07", "[198.51.100.7]", "-"],
)  # fmt: skip
async def test_without_the_address_it_was_heard_from_nobody_is_trusted(
    house: House, http: httpx2.AsyncClient, client_ip: str
) -> None:
    message_id = new_id()
    raw = mail(message_id)
    assert (await http.post("/mail/inbound", content=raw, headers=signed(raw, client_ip=client_ip))).status_code == 202
    assert (await house.operator.incoming("paula", message_id))["state"] == "quarantined"


async def test_an_address_that_is_named_twice_is_no_address(house: House, http: httpx2.AsyncClient) -> None:
    raw = mail(new_id())
    headers = [*signed(raw).items(), ("TinyFat-Client-Ip", HEARD_FROM)]
    assert (await http.post("/mail/inbound", content=raw, headers=headers)).status_code == 401


async def test_what_the_operators_api_can_do_is_told_to_the_operator_alone(
    house: House, http: httpx2.AsyncClient
) -> None:
    for path in (
        "/api/openapi.json",
        "/openapi.json",
        "/docs",
        "/redoc",
        "/api",
        "/api/nothing",
        "/nothing",
        "//api/agents",
    ):
        assert (await http.get(path)).status_code == 401, path
    token = {"Authorization": f"Bearer {Home(house.tinyfat.home).operator_token()}"}
    assert "/api/agents" in (await http.get("/api/openapi.json", headers=token)).json()["paths"]
    assert (await http.get("/api/nothing", headers=token)).status_code == 404


async def test_health_and_readiness(http: httpx2.AsyncClient) -> None:
    for path in ("/healthz", "/readyz"):
        answer = await http.get(path)
        assert (answer.status_code, answer.json()["ok"]) == (200, True)


@pytest.mark.parametrize("header", ["", "Bearer x", "wrong", "Basic dGlueWZhdDo=", "Bearer ü"])
@pytest.mark.parametrize(("method", "path"), [("GET", "agents"), ("POST", "agents"), ("DELETE", "agents/paula"),
                                              ("GET", "mail/x"), ("GET", "status")])  # fmt: skip
async def test_the_operators_api_opens_to_its_token_alone(
    http: httpx2.AsyncClient, header: str, method: str, path: str
) -> None:
    answer = await http.request(method, f"/api/{path}", headers={"Authorization": header.encode()})
    assert answer.status_code == 401


async def test_a_box_with_another_token_is_sent_away(house: House) -> None:
    url = f"ws://127.0.0.1:{house.tinyfat.http_port}/box/link"
    with pytest.raises(websockets.InvalidStatus) as refused:
        await websockets.connect(url, additional_headers={"Authorization": "Bearer nothing"}, proxy=None)
    assert refused.value.response.status_code == 403
