"""`doctor --dns` against a real DNS server on loopback."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.dns_server import Zone, dns_server
from tests.rsa_keys import rsa_key
from tinyfat.cli.doctor_dns import DnsFinding, dkim_public_key, dns_findings, resolver_of
from tinyfat.domain.names import RecordType
from tinyfat.recipes.dns_records import MailTerms, mail_records

KEY = rsa_key(7)
TERMS = MailTerms("agents.example.org", "", "", "tinyfat", KEY.public_base64)


def found(zone: Zone) -> list[DnsFinding]:
    with dns_server(zone):
        return list(dns_findings(TERMS, resolver_of([zone.address])))


def as_told() -> Zone:
    """Everything entered that is asked for."""
    zone = Zone()
    for one in mail_records(TERMS):
        if one.wanted.kind is RecordType.TXT:
            zone.txt(one.wanted.name, *(value.encode() for value in one.wanted.values))
        else:
            zone.records[one.wanted.name, str(one.wanted.kind)] = list(one.wanted.values)
    zone.records["mail.agents.example.org", "A"] = ["192.0.2.7"]
    return zone


def test_what_was_entered_as_told_is_well() -> None:
    findings = found(as_told())
    assert [one.verdict for one in findings] == ["ok"] * 5, findings
    assert [one.what for one in findings] == ["MX", "MX", "SPF", "DKIM", "DMARC"]


def test_an_empty_zone_is_told_what_to_enter() -> None:
    findings = {one.what: one for one in found(Zone(records={("agents.example.org", "A"): ["192.0.2.7"]}))}
    assert {what: one.verdict for what, one in findings.items()} == {
        "MX": "wrong", "SPF": "wrong", "DKIM": "wrong", "DMARC": "wrong",
    }  # fmt: skip
    assert findings["MX"].advice == "Enter: agents.example.org. 3600 IN MX 10 mail.agents.example.org."
    assert KEY.public_base64[:60] in findings["DKIM"].advice


def test_another_key_is_seen_and_the_right_one_shown() -> None:
    zone = as_told()
    zone.txt("tinyfat._domainkey.agents.example.org", rsa_key(8).record())
    (dkim,) = [one for one in found(zone) if one.what == "DKIM"]
    assert dkim.verdict == "wrong" and "another key" in dkim.words and KEY.public_base64[:60] in dkim.advice


def test_an_exchange_without_an_address_takes_no_mail() -> None:
    zone = as_told()
    del zone.records["mail.agents.example.org", "A"]
    assert any(one.what == "MX" and "no address" in one.words for one in found(zone))


def test_a_policy_that_is_announced_needs_its_host() -> None:
    zone = as_told()
    zone.txt("_mta-sts.agents.example.org", b"v=STSv1; id=1")
    (host,) = [one for one in found(zone) if one.what == "MTA-STS"]
    assert host.verdict == "wrong" and "Remove _mta-sts" in host.advice
    zone.failing.add("mta-sts.agents.example.org")
    (unknown,) = [one for one in found(zone) if one.what == "MTA-STS"]
    assert unknown.verdict == "note" and "no nameserver answered" in unknown.words
    zone.failing.clear()
    zone.records["mta-sts.agents.example.org", "AAAA"] = ["2001:db8::7"]
    (there,) = [one for one in found(zone) if one.what == "MTA-STS"]
    assert there.verdict == "note" and "yours to serve" in there.words


def test_a_nameserver_that_fails_says_nothing_about_the_record() -> None:
    zone = as_told()
    zone.failing.add("_dmarc.agents.example.org")
    (dmarc,) = [one for one in found(zone) if one.what == "DMARC"]
    assert dmarc.verdict == "wrong" and "no nameserver answered" in dmarc.words


def test_the_public_half_of_the_key(tmp_path: Path) -> None:
    file = tmp_path / "dkim.pem"
    file.write_bytes(KEY.private_pem)
    assert dkim_public_key(file) == KEY.public_base64
    assert dkim_public_key(None) == ""
    file.write_text("no key")
    with pytest.raises(ValueError):
        dkim_public_key(file)
