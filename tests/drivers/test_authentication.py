"""Senders proved against a real DNS server on loopback, with real keys."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import dkim
import pytest

from tests.dns_server import Zone, dns_server
from tests.machine_speed import at_most, patient
from tests.rsa_keys import rsa_key
from tinyfat.domain.mail.message import read_mail
from tinyfat.drivers.mail.authentication import DnsSenderAuthentication
from tinyfat.drivers.mail.dkim_signing import DkimSigner
from tinyfat.drivers.mail.dmarc import organisational_domain
from tinyfat.drivers.mail.dns_lookups import nameserver
from tinyfat.ports.mail import Authentication, AuthenticationUnknown, Envelope

MAIL = (
    b"From: Maria <maria@example.org>\r\nTo: ada@t.org\r\nSubject: Hi\r\nMessage-ID: <1@x>\r\n\r\nHello  there \r\n\r\n"
)
GOOD_IP, BAD_IP = "192.0.2.10", "203.0.113.99"
KEY, OTHER_KEY = rsa_key(1), rsa_key(2)
MOMENT = 300.0  # times tests/machine_speed's fixed work


@pytest.fixture
def zone() -> Iterator[Zone]:
    with dns_server(Zone()) as zone:
        zone.txt("example.org", b"v=spf1 ip4:192.0.2.0/24 -all")
        zone.txt("mail.example.org", b"v=spf1 a:relay.example.org mx -all")
        zone.records["relay.example.org", "A"] = [GOOD_IP]
        zone.txt("bad.example", b"v=spf1 ip4:203.0.113.0/24 -all")
        zone.txt("s1._domainkey.example.org", KEY.record())
        zone.txt("s1._domainkey.mail.example.org", KEY.record())
        zone.txt("s1._domainkey.bad.example", OTHER_KEY.record())
        yield zone


@pytest.fixture
async def senders(zone: Zone) -> AsyncIterator[DnsSenderAuthentication]:
    senders = DnsSenderAuthentication((zone.address,), timeout_seconds=1.0)
    yield senders
    senders.close()


@pytest.fixture
async def patient_senders(zone: Zone) -> AsyncIterator[DnsSenderAuthentication]:
    """For what keeps the processor busy between two lookups, on a machine that is busy with others too."""
    senders = DnsSenderAuthentication((zone.address,), timeout_seconds=60.0)
    yield senders
    senders.close()


def envelope(
    ip: str = BAD_IP, mail_from: str = "x@unrelated.example", helo: str = "relay.unrelated.example"
) -> Envelope:
    return Envelope(ip, helo, mail_from)


def signed(raw: bytes = MAIL, domain: str = "example.org", key: bytes = KEY.private_pem) -> bytes:
    return DkimSigner(key, "s1", domain).sign(raw)


def signed_with(raw: bytes = MAIL, **options: object) -> bytes:
    arguments = {"include_headers": [b"from", b"to", b"subject", b"message-id"], **options}
    return dkim.sign(raw, b"s1", b"example.org", KEY.private_pem, **arguments) + raw


async def ask(
    senders: DnsSenderAuthentication, raw: bytes, sent: Envelope, sender: str = "maria@example.org"
) -> Authentication:
    return await senders.check(raw, sent, sender)


class TestSpf:
    async def test_passes_for_the_from_domain(self, senders: DnsSenderAuthentication) -> None:
        result = await ask(senders, MAIL, envelope(GOOD_IP, "bounce@example.org"))
        assert result.passed
        assert "spf=pass" in result.detail and "dmarc=pass" in result.detail

    async def test_fails_from_another_network(self, senders: DnsSenderAuthentication) -> None:
        result = await ask(senders, MAIL, envelope(BAD_IP, "maria@example.org"))
        assert not result.passed
        assert "spf=fail" in result.detail

    async def test_of_a_subdomain_aligns_when_relaxed(self, senders: DnsSenderAuthentication) -> None:
        assert (await ask(senders, MAIL, envelope(GOOD_IP, "b@mail.example.org"))).passed

    async def test_of_a_subdomain_does_not_when_strict(self, senders: DnsSenderAuthentication, zone: Zone) -> None:
        zone.txt("_dmarc.example.org", b"v=DMARC1; p=none; aspf=s")
        assert not (await ask(senders, MAIL, envelope(GOOD_IP, "b@mail.example.org"))).passed
        assert (await ask(senders, MAIL, envelope(GOOD_IP, "b@example.org"))).passed

    async def test_of_a_stranger_proves_nothing(self, senders: DnsSenderAuthentication, zone: Zone) -> None:
        result = await ask(senders, MAIL, envelope(BAD_IP, "thief@bad.example"))
        assert not result.passed
        assert ("bad.example", "TXT") not in zone.asked

    async def test_of_the_helo_name_counts_for_the_null_return_path(self, senders: DnsSenderAuthentication) -> None:
        assert (await ask(senders, MAIL, envelope(GOOD_IP, "", "mail.example.org"))).passed
        assert not (await ask(senders, MAIL, envelope(GOOD_IP, "", "mail.bad.example"))).passed

    async def test_of_mx(self, senders: DnsSenderAuthentication, zone: Zone) -> None:
        zone.txt("example.org", b"v=spf1 mx -all")
        zone.records["example.org", "MX"] = ["10 relay.example.org."]
        assert (await ask(senders, MAIL, envelope(GOOD_IP, "b@example.org"))).passed
        assert not (await ask(senders, MAIL, envelope(BAD_IP, "b@example.org"))).passed

    async def test_ipv6(self, senders: DnsSenderAuthentication, zone: Zone) -> None:
        zone.txt("example.org", b"v=spf1 ip6:2001:db8::/32 -all")
        assert (await ask(senders, MAIL, envelope("2001:db8::7", "b@example.org"))).passed
        assert not (await ask(senders, MAIL, envelope("2001:db9::7", "b@example.org"))).passed

    @pytest.mark.parametrize(
        "record",
        [
            b"v=spf1 include:example.org -all",
            b"v=spf1 redirect=example.org",
            b"v=spf1 ip4:999.0.0.0/99 moo -all",
            b"v=spf1 exists:%{i}.%{d}.%{",
            b"v=spf1 " + b"a:" + b"a1" * 900 + b"! -all",
            b"v=spf1 " + b"a:" + b"a-" * 900 + b"! -all",
            b"v=spf1 " + b"ip4:192.0.2.0/24 " * 150,  # longer than we read
        ],
    )
    async def test_hostile_records_prove_nothing_and_take_no_time(
        self, senders: DnsSenderAuthentication, zone: Zone, record: bytes
    ) -> None:
        zone.txt("example.org", record)
        with at_most(MOMENT):
            assert not (await ask(senders, MAIL, envelope(GOOD_IP, "b@example.org"))).passed

    @pytest.mark.parametrize("sender", ["x", "a@b@example.org", '"a@example.org"@bad.example', "@", "x@" + "a." * 300])
    async def test_odd_return_paths(self, senders: DnsSenderAuthentication, sender: str) -> None:
        assert not (await ask(senders, MAIL, envelope(GOOD_IP, sender))).passed

    @pytest.mark.parametrize("ip", ["", "not an ip", "list"])
    async def test_odd_clients(self, senders: DnsSenderAuthentication, ip: str) -> None:
        assert not (await ask(senders, MAIL, envelope(ip, "b@example.org"))).passed


class TestDkim:
    async def test_passes_for_the_from_domain(self, senders: DnsSenderAuthentication) -> None:
        result = await ask(senders, signed(), envelope())
        assert result.passed
        assert "dkim=pass header.d=example.org" in result.detail

    async def test_survives_a_relay_that_refolds_and_strips_blanks(self, senders: DnsSenderAuthentication) -> None:
        relayed = signed().replace(b"Subject: Hi", b"Subject:   Hi ").replace(b"Hello  there ", b"Hello there")
        assert (await ask(senders, relayed, envelope())).passed

    @pytest.mark.parametrize(
        "change",
        [(b"Hello", b"Jello"), (b"Subject: Hi", b"Subject: Ho"), (b"Message-ID: <1@x>", b"Message-ID: <2@x>")],
    )
    async def test_fails_when_anything_signed_was_changed(
        self, senders: DnsSenderAuthentication, change: tuple[bytes, bytes]
    ) -> None:
        assert not (await ask(senders, signed().replace(*change), envelope())).passed

    @pytest.mark.parametrize("field", [b"Subject: two\r\n", b"To: x@y.z\r\n", b"Reply-To: thief@bad.example\r\n"])
    async def test_our_own_signatures_let_nobody_add_a_field(
        self, senders: DnsSenderAuthentication, field: bytes
    ) -> None:
        assert not (await ask(senders, field + signed(), envelope())).passed

    async def test_of_a_stranger_proves_nothing_and_its_key_is_not_asked_for(
        self, senders: DnsSenderAuthentication, zone: Zone
    ) -> None:
        raw = signed(domain="bad.example", key=OTHER_KEY.private_pem)
        assert not (await ask(senders, raw, envelope())).passed
        assert zone.asked == []

    async def test_a_good_signature_below_a_strangers(self, senders: DnsSenderAuthentication) -> None:
        raw = signed(signed(), domain="bad.example", key=OTHER_KEY.private_pem)
        assert (await ask(senders, raw, envelope())).passed

    async def test_another_key_fails(self, senders: DnsSenderAuthentication) -> None:
        assert not (await ask(senders, signed(key=OTHER_KEY.private_pem), envelope())).passed

    async def test_of_a_subdomain_by_policy(self, senders: DnsSenderAuthentication, zone: Zone) -> None:
        raw = signed(domain="mail.example.org")
        assert (await ask(senders, raw, envelope())).passed
        zone.txt("_dmarc.example.org", b"v=DMARC1; p=reject; adkim=s")
        fresh = DnsSenderAuthentication((zone.address,), 1.0)
        assert not (await ask(fresh, raw, envelope())).passed
        fresh.close()

    @pytest.mark.parametrize(
        "tags",
        ["v=DKIM1; k=rsa; t=y", "v=DKIM1; h=sha1", "v=DKIM1; s=other; t=y", "v=DKIM2", "v=DKIM1; n=" + "x" * 1200],
    )
    async def test_key_records_that_forbid(self, senders: DnsSenderAuthentication, zone: Zone, tags: str) -> None:
        zone.txt("s1._domainkey.example.org", KEY.record(tags))
        assert not (await ask(senders, signed(), envelope())).passed

    @pytest.mark.parametrize(
        "record", [b"v=DKIM1; p=", b"v=DKIM1", b"", b"p=!!!!", b"p=AAAA", b"\xff\xfe", b"p=x; p=y"]
    )
    async def test_broken_key_records(self, senders: DnsSenderAuthentication, zone: Zone, record: bytes) -> None:
        zone.txt("s1._domainkey.example.org", record)
        assert not (await ask(senders, signed(), envelope())).passed

    async def test_weak_keys_are_refused(self, senders: DnsSenderAuthentication, zone: Zone) -> None:
        weak = rsa_key(3, bits=768)
        zone.txt("s1._domainkey.example.org", weak.record())
        raw = dkim.sign(MAIL, b"s1", b"example.org", weak.private_pem) + MAIL
        assert not (await ask(senders, raw, envelope())).passed

    async def test_a_part_of_the_body_is_not_enough(self, senders: DnsSenderAuthentication) -> None:
        raw = signed_with(length=True)
        assert (await ask(senders, signed_with(), envelope())).passed
        assert not (await ask(senders, raw + b"And send me the money.\r\n", envelope())).passed
        assert not (await ask(senders, raw, envelope())).passed

    async def test_sha1_is_refused(self, senders: DnsSenderAuthentication) -> None:
        raw = signed_with(signature_algorithm=b"rsa-sha1")
        assert not (await ask(senders, raw, envelope())).passed

    async def test_hostile_signatures_take_no_time(self, senders: DnsSenderAuthentication) -> None:
        for value in (
            b"v=1; a=rsa-sha256; d=example.org; s=s1; h=from; bh=AA==; b=" + b" " * 4000 + b"!",
            b"v=1; a=rsa-sha256; d=example.org; s=s1; bh=AA==; b=AA==; h=from" + b":x" * 1500,
            b"v=1; a=rsa-sha256; d=example.org; s=s1; bh=AA==; b=AA==; h=from" + b" " * 100_000,
            b"v=1; a=rsa-sha256; d=example.org; s=../../x; bh=AA==; b=AA==; h=from",
            b";;;;",
            b"",
            b"=",
            b"v=1" * 3000,
        ):
            raw = b"DKIM-Signature: " + value + b"\r\n" + MAIL
            with at_most(MOMENT):
                assert not (await ask(senders, raw, envelope())).passed

    @pytest.mark.parametrize(
        "tail",
        [b" " * 3_000_000 + b"x", b"\n" * 3_000_000, b"\t \t" * 1_000_000, b"x y\r\n" * 400_000],
        ids=["blanks", "newlines", "tabs", "lines"],
    )
    async def test_hostile_bodies_take_no_time(self, patient_senders: DnsSenderAuthentication, tail: bytes) -> None:
        raw = signed() + tail
        with at_most(3 * MOMENT):
            assert not (await ask(patient_senders, raw, envelope())).passed

    async def test_a_large_signed_body_passes(self, patient_senders: DnsSenderAuthentication) -> None:
        raw = signed(MAIL + b"line with  blanks \t\r\n" * 100_000)
        assert (await ask(patient_senders, raw, envelope())).passed


class TestForgedFrom:
    """Whatever the signature and the envelope prove of bad.example, example.org is not proved."""

    @pytest.mark.parametrize(
        "field",
        [
            b"From: maria@example.org, thief@bad.example",
            b"From: maria@example.org <thief@bad.example>",
            b"From: <maria@example.org> <thief@bad.example>",
            b"From: thief@bad.example\r\nFrom: maria@example.org",
            b"From: maria@example.org\r\nFrom: thief@bad.example",
            b"From: thief@bad.example\r\nFrom : maria@example.org",
            b"From: Team: maria@example.org;",
            b"From:",
            b"From: nobody",
            b"From: maria@example.org\x00@bad.example",
            b"From: (maria@example.org) thief@bad.example",
            b'From: "maria@example.org" <thief@bad.example>',
            b"From: =?utf-8?q?maria=40example.org?= <thief@bad.example>",
            b"From: maria@example.org" + b" " * 70_000 + b", thief@bad.example",
            b"Fr\xf6m: x",
            b"Resent-From: maria@example.org",
            b"Sender: maria@example.org",
        ],
    )
    async def test_never_passes(self, senders: DnsSenderAuthentication, field: bytes) -> None:
        raw = field + b"\r\nSubject: Hi\r\n\r\nPay me.\r\n"
        for candidate in (raw, signed_somehow(raw)):
            sent = envelope(BAD_IP, "thief@bad.example", "mx.bad.example")
            assert not (await ask(senders, candidate, sent, "maria@example.org")).passed
            claimed = read_mail(candidate).from_address
            assert claimed != "maria@example.org"
            result = await ask(senders, candidate, sent, claimed)
            assert result.passed == (claimed == "thief@bad.example")

    async def test_a_cousin_domain_is_another(self, senders: DnsSenderAuthentication) -> None:
        raw = MAIL.replace(b"maria@example.org", b"maria@example.org.bad.example")
        sent = envelope(GOOD_IP, "maria@example.org")
        assert not (await ask(senders, raw, sent, "maria@example.org.bad.example")).passed

    async def test_two_customers_of_one_host_are_strangers(self, senders: DnsSenderAuthentication, zone: Zone) -> None:
        zone.txt("thief.co.uk", b"v=spf1 +all")
        raw = MAIL.replace(b"example.org", b"maria.co.uk")
        assert not (await ask(senders, raw, envelope(BAD_IP, "x@thief.co.uk"), "maria@maria.co.uk")).passed


def signed_somehow(raw: bytes) -> bytes:
    try:
        return signed(raw, "bad.example", OTHER_KEY.private_pem)
    except dkim.DKIMException:
        return raw


class TestTemporaryErrors:
    async def test_unknown_where_spf_might_have_passed(self, senders: DnsSenderAuthentication, zone: Zone) -> None:
        zone.failing.add("example.org")
        with pytest.raises(AuthenticationUnknown, match=r"example\.org"):
            await ask(senders, MAIL, envelope(GOOD_IP, "b@example.org"))

    async def test_unknown_where_the_key_does_not_answer(self, senders: DnsSenderAuthentication, zone: Zone) -> None:
        zone.silent.add("s1._domainkey.example.org")
        with pytest.raises(AuthenticationUnknown):
            await ask(senders, signed(), envelope())

    async def test_no_matter_where_another_proof_stands(self, senders: DnsSenderAuthentication, zone: Zone) -> None:
        zone.failing.add("example.org")
        assert (await ask(senders, signed(), envelope(GOOD_IP, "b@example.org"))).passed

    async def test_no_matter_where_the_proof_would_be_a_strangers(
        self, senders: DnsSenderAuthentication, zone: Zone
    ) -> None:
        zone.failing |= {"bad.example", "s1._domainkey.bad.example"}
        raw = signed(domain="bad.example", key=OTHER_KEY.private_pem)
        assert not (await ask(senders, raw, envelope(BAD_IP, "x@bad.example"))).passed

    async def test_the_policy_matters_only_to_a_relaxed_pass(
        self, senders: DnsSenderAuthentication, zone: Zone
    ) -> None:
        zone.failing.add("_dmarc.example.org")
        assert (await ask(senders, MAIL, envelope(GOOD_IP, "b@example.org"))).passed
        with pytest.raises(AuthenticationUnknown, match="DMARC"):
            await ask(senders, MAIL, envelope(GOOD_IP, "b@mail.example.org"))

    async def test_strict_policy_makes_a_subdomains_silence_a_no(
        self, senders: DnsSenderAuthentication, zone: Zone
    ) -> None:
        zone.failing.add("mail.example.org")
        zone.txt("_dmarc.example.org", b"v=DMARC1; p=none; aspf=s")
        assert not (await ask(senders, MAIL, envelope(GOOD_IP, "b@mail.example.org"))).passed

    async def test_a_dead_server_is_given_up_in_time(self) -> None:
        senders = DnsSenderAuthentication(("127.0.0.1:1",), timeout_seconds=0.3)
        with pytest.raises(AuthenticationUnknown):
            await asyncio.wait_for(ask(senders, MAIL, envelope(GOOD_IP, "b@example.org")), patient(5))
        senders.close()


class TestPolicy:
    @pytest.mark.parametrize(
        ("records", "passed"),
        [
            ((b"v=DMARC1; p=none; aspf=s",), False),
            ((b"v=DMARC1;p=none;ASPF = S ;",), False),
            ((b"v=DMARC1; p=none; aspf=r",), True),
            ((b"v=DMARC1; p=none",), True),
            ((b"v=DMARC2; aspf=s",), True),
            ((b"v=DMARC1; aspf=s", b"v=DMARC1; p=none; aspf=s"), True),
            ((b"something else", b"v=DMARC1; aspf=s"), False),
            ((b"v=DMARC1; nonsense; =; aspf=s",), False),
        ],
    )
    async def test_alignment(
        self, senders: DnsSenderAuthentication, zone: Zone, records: tuple[bytes, ...], passed: bool
    ) -> None:
        zone.txt("_dmarc.example.org", *records)
        assert (await ask(senders, MAIL, envelope(GOOD_IP, "b@mail.example.org"))).passed is passed

    async def test_a_subdomains_own_policy_comes_first(self, senders: DnsSenderAuthentication, zone: Zone) -> None:
        zone.txt("_dmarc.example.org", b"v=DMARC1; p=none; aspf=s")
        zone.txt("_dmarc.mail.example.org", b"v=DMARC1; p=none")
        raw = MAIL.replace(b"maria@example.org", b"maria@mail.example.org")
        assert (await ask(senders, raw, envelope(GOOD_IP, "b@example.org"), "maria@mail.example.org")).passed

    @pytest.mark.parametrize(
        ("domain", "organisation"),
        [
            ("a.b.example.co.uk", "example.co.uk"),
            ("example.com", "example.com"),
            ("com", "com"),
            ("x.one.vercel.app", "one.vercel.app"),
            ("mail.tinyfat.localhost", "tinyfat.localhost"),
            ("localhost", "localhost"),
            ("deep.sub.www.ck", "www.ck"),
        ],
    )
    def test_organisations(self, domain: str, organisation: str) -> None:
        assert organisational_domain(domain) == organisation


class TestBounds:
    async def test_answers_are_remembered_briefly(self, senders: DnsSenderAuthentication, zone: Zone) -> None:
        for _ in range(3):
            await ask(senders, MAIL, envelope(GOOD_IP, "b@example.org"))
        assert zone.asked.count(("example.org", "TXT")) == 1

    async def test_many_at_once_are_all_answered_or_told_to_wait(self, senders: DnsSenderAuthentication) -> None:
        checks = [ask(senders, MAIL, envelope(GOOD_IP, "b@example.org")) for _ in range(150)]
        results = await asyncio.gather(*checks, return_exceptions=True)
        passed = [one for one in results if isinstance(one, Authentication) and one.passed]
        told = [one for one in results if isinstance(one, AuthenticationUnknown)]
        assert (len(passed), len(told)) == (100, 50)

    @pytest.mark.parametrize("text", ["", "dns.example", "1.2.3.4:x", "1.2.3.4:0", "1.2.3.4:99999", "[::1]:"])
    def test_nameservers_are_checked(self, text: str) -> None:
        if text == "[::1]:":
            assert nameserver(text).port == 53
            return
        with pytest.raises(ValueError, match="nameserver"):
            nameserver(text)

    def test_nameservers(self) -> None:
        assert str(nameserver("192.0.2.1")) == "Do53:192.0.2.1@53"
        assert str(nameserver("[2001:db8::1]:5353")) == "Do53:2001:db8::1@5353"
        assert str(nameserver("2001:db8::1")) == "Do53:2001:db8::1@53"
