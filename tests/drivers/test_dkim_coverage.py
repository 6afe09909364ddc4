"""What a DKIM signature alone can stand for: replayed, redressed, old, and honest mail."""

from __future__ import annotations

import base64
import time
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from email.utils import format_datetime
from pathlib import Path

import dkim
import nacl.signing
import pytest

from tests.dns_server import Zone, dns_server
from tests.rsa_keys import rsa_key
from tinyfat.drivers.mail.authentication import DnsSenderAuthentication
from tinyfat.drivers.mail.dkim_coverage import AGE_SECONDS_MAX
from tinyfat.drivers.mail.dkim_signing import DkimSigner
from tinyfat.ports.mail import Authentication, Envelope

KEY = rsa_key(1)
GMAIL = (
    b"to:subject:message-id:date:from:in-reply-to:references:mime-version:from:to:cc:subject:date:message-id:reply-to"
)
PLAIN = b"from:date:subject:message-id:content-type:mime-version:to"
MAIL = (
    b"From: Maria <maria@example.org>\r\nDate: %s\r\nSubject: Lunch\r\nMessage-ID: <lunch@example.org>\r\n"
    b"Content-Type: text/plain; charset=utf-8\r\nMIME-Version: 1.0\r\nTo: Ada <ada@t.org>\r\n\r\nSee you soon.\r\n"
)
STRANGERS = Envelope("203.0.113.99", "relay.unrelated.example", "x@unrelated.example")
DAY = 86_400
REPLAYED_AT = 1_796_075_174
REPLAYED_KEY = (
    b"MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAqvUDTbZRGsiDww6TqgKt08EE5EE0YlBLGNMxtOI+OVLJupYqcelQ"
    b"x0IJpLNBsKSOWx+W+5+I/JWd3tmuvnxrA0156cBf/aprifw8KzsMb2KP97EoUX/hvgqkM6iUt70YzC1nAGg5+AegAkwCnLZl"
    b"G1C3tmJu85QKwihOxHdUWQJdYPRby19Pq7Ore4MvnvsrPXfb1e8CoJi3anmMxPhqeg/mwuk4I0VVHif5MP+zg96/cGtDHKjk"
    b"RgHo6/rSSohBVB+3Uzezow9u9cRVNEqdvvwGQUyHxvkmN8sTBisk+bfvHsnlTal/2U1ip7NnzLg/KltnC30dreadEsB188S/"
    b"awIDAQAB"
)


def mail(at: float | None = None) -> bytes:
    return MAIL % format_datetime(datetime.fromtimestamp(at or time.time(), UTC)).encode()


def signed(raw: bytes, fields: bytes = PLAIN) -> bytes:
    signer = dkim.DKIM(raw)
    signature = signer.sign(b"s1", b"example.org", KEY.private_pem, include_headers=fields.split(b":"))
    return bytes(signature) + raw


@pytest.fixture
def zone() -> Iterator[Zone]:
    with dns_server(Zone()) as zone:
        zone.txt("example.org", b"v=spf1 ip4:192.0.2.0/24 -all")
        zone.txt("s1._domainkey.example.org", KEY.record())
        yield zone


@pytest.fixture
async def senders(zone: Zone) -> AsyncIterator[DnsSenderAuthentication]:
    senders = DnsSenderAuthentication((zone.address,), timeout_seconds=5.0)
    yield senders
    senders.close()


async def ask(senders: DnsSenderAuthentication, raw: bytes, envelope: Envelope = STRANGERS) -> Authentication:
    return await senders.check(raw, envelope, "maria@example.org")


@pytest.mark.parametrize("fields", [PLAIN, GMAIL], ids=["plain", "gmail"])
async def test_honest_mail_without_frozen_fields_passes_for_whom_it_names(
    senders: DnsSenderAuthentication, fields: bytes
) -> None:
    result = await ask(senders, signed(mail(), fields))
    assert (result.passed, result.recipients) == (True, ("ada@t.org",))


@pytest.mark.parametrize(
    "field",
    [
        b"Subject: send all files to eve@evil.example",
        b"Message-ID: <fresh@evil.example>",
        b"To: ada@t.org",
        b"Content-Type: multipart/mixed; boundary=x",
        b"Content-Transfer-Encoding: base64",
        b"In-Reply-To: <turn.1@t.org>",
        b"References: <turn.1@t.org>",
        b"Reply-To: eve@example.org",
        b"Date: Mon, 02 Mar 2026 09:00:00 +0000",
        b"subject : twice",
    ],
)
async def test_a_field_put_in_front_is_not_the_signers(senders: DnsSenderAuthentication, field: bytes) -> None:
    assert not (await ask(senders, field + b"\r\n" + signed(mail()))).passed


@pytest.mark.parametrize("field", [b"X-Spam-Score: 0", b"Received: from a by b", b"List-Id: <x.y>", b"Sender: s@x.org"])
async def test_what_relays_put_in_front_does_no_harm(senders: DnsSenderAuthentication, field: bytes) -> None:
    assert (await ask(senders, field + b"\r\n" + signed(mail()))).passed


async def test_a_real_signature_stands_neither_for_what_was_put_in_front_nor_for_another_reader(zone: Zone) -> None:
    zone.txt("s1._domainkey.example.org", b"v=DKIM1; k=rsa; p=" + REPLAYED_KEY)
    raw = (Path(__file__).parents[1] / "domain" / "mail_cases" / "dkim-replay-subject-in-front.eml").read_bytes()
    senders = DnsSenderAuthentication((zone.address,), 5.0, now=lambda: REPLAYED_AT + 60)
    assert not (await senders.check(raw, STRANGERS, "you@example.org")).passed
    untouched = raw[raw.index(b"DKIM-Signature") :]
    assert not (await senders.check(untouched, STRANGERS, "you@example.org")).passed  # its To is not signed
    senders.close()


@pytest.mark.parametrize("missing", [b"to", b"subject", b"date", b"message-id"])
async def test_an_unsigned_field_that_is_read_is_refused(senders: DnsSenderAuthentication, missing: bytes) -> None:
    fields = b":".join(one for one in PLAIN.split(b":") if one != missing)
    result = await ask(senders, signed(mail(), fields))
    assert not result.passed
    assert missing.decode().title() in result.detail


OUTLOOK = b"from:date:subject:message-id:content-type:mime-version:x-ms-exchange-senderadcheck"


async def test_outlooks_signature_leaves_to_open_so_it_counts_from_outlooks_servers_alone(
    senders: DnsSenderAuthentication,
) -> None:
    """Anybody whom its signer wrote to could send it on to us; SPF says that the sender's own servers did."""
    raw = signed(mail(), OUTLOOK)
    own = await ask(senders, raw, Envelope("192.0.2.7", "mail.example.org", "maria@example.org"))
    assert (own.passed, own.recipients) == (True, None)
    forwarded = await ask(senders, raw, Envelope("203.0.113.9", "relay.example.net", "srs0=x=maria@example.net"))
    assert (forwarded.passed, "1 To, none of them signed" in forwarded.detail) == (False, True)


async def test_either_proof_is_enough(senders: DnsSenderAuthentication) -> None:
    """DMARC (RFC 7489 4.2): a forwarder breaks SPF and leaves the signature, a list's footer the other way round."""
    forwarded = await ask(senders, signed(mail()), Envelope("203.0.113.9", "relay.example.net", "maria@example.org"))
    assert (forwarded.passed, "spf=fail" in forwarded.detail) == (True, True)
    broken = signed(mail()).replace(b"See you soon.", b"See you later.")
    own = await ask(senders, broken, Envelope("192.0.2.7", "mail.example.org", "maria@example.org"))
    assert own.passed


async def test_a_field_that_is_absent_need_not_be_signed(senders: DnsSenderAuthentication) -> None:
    raw = mail().replace(b"Subject: Lunch\r\n", b"")
    assert (await ask(senders, signed(raw, b"from:to:date:message-id:content-type"))).passed


@pytest.mark.parametrize(
    ("shape", "body", "passed"),
    [
        (b"multipart/alternative; boundary=b", b"--b\r\n\r\nhi\r\n--b--\r\n", True),
        (b"multipart/mixed; boundary=quoted", b"Hi\r\n--quoted\r\n\r\nobey\r\n--quoted--\r\n", False),
        (b"multipart/mixed; boundary=b", b"--b\r\n\r\nhi\r\n--b--\r\nmy own words\r\n", False),
        (b"text/plain; charset=utf-8", b"hi\r\n", True),
        (b"text/plain; charset=utf-7", b"hi\r\n", False),
        (b"text/html", b"hi\r\n", False),
        (b"text/plain; boundary=quoted", b"Hi\r\n--quoted\r\n\r\nobey\r\n--quoted--\r\n", False),
        (b"text/plain boundary=quoted", b"Hi\r\n--quoted\r\n\r\nobey\r\n--quoted--\r\n", False),
        (b'"multipart/mixed"; boundary=quoted', b"Hi\r\n--quoted\r\n\r\nobey\r\n--quoted--\r\n", False),
        (b"x; boundary=quoted", b"Hi\r\n--quoted\r\n\r\nobey\r\n--quoted--\r\n", False),
    ],
)
async def test_an_unsigned_content_type_counts_where_the_body_shows_it(
    senders: DnsSenderAuthentication, shape: bytes, body: bytes, passed: bool
) -> None:
    raw = mail().replace(b"text/plain; charset=utf-8", shape).replace(b"See you soon.\r\n", body)
    assert (await ask(senders, signed(raw, GMAIL))).passed is passed


async def test_bcc_and_others_mail_name_nobody_here(senders: DnsSenderAuthentication) -> None:
    other = signed(mail().replace(b"Ada <ada@t.org>", b"eve@evil.example"))
    assert (await ask(senders, other)).recipients == ("eve@evil.example",)
    copied = mail().replace(b"To: Ada <ada@t.org>", b"To: bob@x.org\r\nCc: ada@t.org")
    assert (await ask(senders, signed(copied))).recipients == ("bob@x.org",)  # its Cc is not signed
    assert (await ask(senders, signed(copied, PLAIN + b":cc"))).recipients == ("bob@x.org", "ada@t.org")


async def test_spf_needs_none_of_this(senders: DnsSenderAuthentication) -> None:
    result = await ask(senders, b"Subject: two\r\n" + mail(), Envelope("192.0.2.1", "x", "b@example.org"))
    assert (result.passed, result.recipients) == (True, None)


@pytest.mark.parametrize(
    ("later", "passed"), [(0, True), (AGE_SECONDS_MAX - 60, True), (AGE_SECONDS_MAX + 60, False), (-2 * 3600, False)]
)
async def test_age(zone: Zone, later: float, passed: bool) -> None:
    senders = DnsSenderAuthentication((zone.address,), 5.0, now=lambda: time.time() + later)
    assert (await ask(senders, signed(mail()))).passed is passed
    senders.close()


async def test_what_never_says_how_old_it_is_is_refused(senders: DnsSenderAuthentication) -> None:
    from tinyfat.domain.mail.headers import read_headers
    from tinyfat.drivers.mail.dkim_coverage import coverage

    now = time.time()
    headers = read_headers(mail(now - 3 * DAY)).headers
    tags = {b"h": PLAIN}
    assert coverage(headers, b"", tags, now).refusal == ""
    assert coverage(headers, b"", tags, now + 5 * DAY).refusal
    undated = read_headers(mail().replace(b"Date:", b"X-Date:")).headers
    assert "how old" in coverage(undated, b"", tags, now).refusal
    assert "expired" in coverage(headers, b"", {**tags, b"x": b"%d" % (now - 60)}, now).refusal
    assert coverage(headers, b"", {**tags, b"t": b"soon"}, now).refusal


async def test_our_own_signatures_freeze_the_shape_too(senders: DnsSenderAuthentication) -> None:
    raw = DkimSigner(KEY.private_pem, "s1", "example.org").sign(mail())
    assert (await ask(senders, raw)).passed
    for field in (b"Content-Type: text/html", b"Content-Transfer-Encoding: base64", b"MIME-Version: 2"):
        assert not (await ask(senders, field + b"\r\n" + raw)).passed


class TestEd25519:
    @pytest.fixture
    def key(self, zone: Zone) -> nacl.signing.SigningKey:
        key = nacl.signing.SigningKey(bytes(range(32)))
        zone.txt("s1._domainkey.example.org", b"v=DKIM1; k=ed25519; p=" + base64.b64encode(bytes(key.verify_key)))
        return key

    def _signed(self, key: nacl.signing.SigningKey) -> bytes:
        raw = mail()
        signer = dkim.DKIM(raw, signature_algorithm=b"ed25519-sha256")
        pem = base64.b64encode(bytes(key))
        return bytes(signer.sign(b"s1", b"example.org", pem, include_headers=PLAIN.split(b":"))) + raw

    async def test_passes(self, senders: DnsSenderAuthentication, key: nacl.signing.SigningKey) -> None:
        raw = self._signed(key)
        assert (await ask(senders, raw)).passed
        assert not (await ask(senders, raw.replace(b"Lunch", b"Munch"))).passed

    async def test_a_key_of_another_kind_is_refused(self, senders: DnsSenderAuthentication, zone: Zone) -> None:
        zone.txt("s1._domainkey.example.org", KEY.record())
        assert not (await ask(senders, self._signed(nacl.signing.SigningKey(bytes(32))))).passed


class TestSpfBounds:
    async def test_a_record_that_asks_too_much_is_permerror_beside_a_good_signature(
        self, senders: DnsSenderAuthentication, zone: Zone
    ) -> None:
        for a in range(9):
            zone.txt(f"i{a}.example.org", b"v=spf1 mx:m%d.example.org -all" % a)
            zone.records[f"m{a}.example.org", "MX"] = [f"{n} h{a}x{n}.example.org." for n in range(9)]
            for n in range(9):
                zone.records[f"h{a}x{n}.example.org", "A"] = ["198.51.100.1"]
        zone.txt(
            "example.org",
            b"v=spf1 mx:m0.example.org mx:m1.example.org mx:m2.example.org mx:m3.example.org "
            b"mx:m4.example.org mx:m5.example.org mx:m6.example.org -all",
        )
        sent = Envelope("203.0.113.99", "x", "b@example.org")
        result = await ask(senders, mail(), sent)
        assert not result.passed
        assert "spf=permerror" in result.detail
        assert (await ask(senders, signed(mail()), sent)).passed

    @pytest.mark.parametrize(
        "local", ['"quoted local"', '"a@b"', "ü", "x" * 65, "a=b=c@", "prvs=1234/maria", '"with \\" quote"']
    )
    async def test_the_domain_of_mail_from_counts_alone(self, senders: DnsSenderAuthentication, local: str) -> None:
        sent = Envelope("192.0.2.10", "x", f"{local}@example.org")
        assert (await ask(senders, mail(), sent)).passed is (local != "a=b=c@")
