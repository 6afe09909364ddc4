"""The mail records of a domain: what is wanted, and what of what is there is wrong."""

from __future__ import annotations

import pytest

from tinyfat.domain.names import RecordSet, RecordType
from tinyfat.recipes.dns_records import (
    Answers,
    MailRecord,
    MailTerms,
    Verdict,
    mail_records,
    zone_lines,
)

KEY = "MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8A" * 8
TERMS = MailTerms("agents.example.org", "mail.example.org", "smtp.example.net", "tinyfat", KEY)


def record(what: str, terms: MailTerms = TERMS) -> MailRecord:
    return next(one for one in mail_records(terms) if one.what == what)


def verdict(what: str, answers: Answers, terms: MailTerms = TERMS) -> tuple[Verdict, str]:
    found = record(what, terms).judged(answers)
    return found.verdict, found.why


def test_what_is_wanted_as_a_zone_file_has_it() -> None:
    lines = [line for one in mail_records(TERMS) for line in zone_lines(one.wanted)]
    dkim = f"v=DKIM1; k=rsa; p={KEY}"
    assert lines == [
        "agents.example.org. 3600 IN MX 10 mail.example.org.",
        'agents.example.org. 3600 IN TXT "v=spf1 mx a:smtp.example.net ~all"',
        f'tinyfat._domainkey.agents.example.org. 3600 IN TXT "{dkim[:255]}" "{dkim[255:]}"',
        '_dmarc.agents.example.org. 3600 IN TXT "v=DMARC1; p=quarantine"',
    ]


def test_what_was_entered_as_told_is_right() -> None:
    for one in mail_records(TERMS):
        assert one.judged(one.wanted.values).verdict is Verdict.OK, one.what


def test_nothing_there_is_missing_and_no_answer_is_not() -> None:
    for one in mail_records(TERMS):
        assert one.judged(()).verdict is Verdict.MISSING
        assert one.judged(None).verdict is Verdict.UNKNOWN


def test_without_a_key_no_dkim_record_is_asked_for() -> None:
    assert "DKIM" not in [one.what for one in mail_records(MailTerms("example.org"))]


@pytest.mark.parametrize(
    ("what", "answers", "word"),
    [
        ("MX", ("10 other.example.org.",), "not to mail.example.org"),
        ("MX", ("0 .",), "takes no mail"),
        ("SPF", ("v=spf1 mx -all", "v=spf1 a:smtp.example.net -all"), "several"),
        ("SPF", ("v=spf1 mx -all",), "a:smtp.example.net"),
        ("SPF", ("v=spf1 mx a:smtp.example.net +all",), "anybody"),
        ("SPF", ("v=spf1 mx a:smtp.example.net",), "anybody"),
        ("DKIM", (f"v=DKIM1; p={KEY[:-4]}AAAA",), "another key"),
        ("DKIM", ("v=DKIM1; p=",), "revoked"),
        ("DKIM", (f"v=DKIM1; k=ed25519; p={KEY}",), "ed25519"),
        ("DMARC", ("v=DMARC1; p=none",), "p=none"),
        ("DMARC", ("v=DMARC1; p=reject", "v=DMARC1; p=none"), "several"),
        ("DMARC", ("v=DMARC1; p=rejcet",), "p=rejcet"),
        ("SPF", ("v=spf1 mx a:smtp.example.net -all",), "replies may fail"),
    ],
)
def test_what_is_different_is_said(what: str, answers: tuple[str, ...], word: str) -> None:
    found, why = verdict(what, answers)
    assert found is Verdict.DIFFERENT and word in why


@pytest.mark.parametrize(
    ("what", "answers"),
    [
        ("MX", ("20 backup.example.org.", "10 mail.example.org.")),
        ("SPF", ("google-site-verification=1", "v=spf1 include:_spf.example.net ~all")),
        ("SPF", ("v=spf1 redirect=_spf.example.net",)),
        ("SPF", ("V=SPF1 mx +a:smtp.example.net ip4:192.0.2.1 ~all",)),
        ("SPF", ("v=spf1 include:_spf.example.net -all",)),
        ("DKIM", (f"k=rsa; p={KEY[:100]} {KEY[100:]}; t=s",)),
        ("DMARC", ("v=DMARC1;p=reject;pct=100",)),
    ],
)
def test_other_ways_to_be_right(what: str, answers: tuple[str, ...]) -> None:
    assert verdict(what, answers) == (Verdict.OK, "")


def test_texts_of_other_kinds_do_not_count() -> None:
    assert verdict("SPF", ("v=spf10 mx", "spf2.0/pra mx -all"))[0] is Verdict.MISSING
    assert verdict("DMARC", ("v=DMARC2; p=reject",))[0] is Verdict.MISSING


@pytest.mark.parametrize(
    ("smarthost", "word"), [("192.0.2.25", "ip4:192.0.2.25"), ("2001:db8::25", "ip6:2001:db8::25"), ("", "mx ~all")]
)
def test_a_smarthost_that_is_an_address(smarthost: str, word: str) -> None:
    terms = MailTerms("example.org", smarthost=smarthost)
    wanted = record("SPF", terms).wanted
    assert wanted.kind is RecordType.TXT and word in wanted.values[0]
    assert isinstance(wanted, RecordSet)


def test_of_an_address_it_is_known_where_it_sends_from() -> None:
    terms = MailTerms("example.org", smarthost="192.0.2.25")
    assert verdict("SPF", ("v=spf1 ip4:192.0.2.25 -all",), terms) == (Verdict.OK, "")


def test_no_policy_is_asked_for_that_makes_unsigned_replies_fail() -> None:
    unsigned = MailTerms("example.org", smarthost="smtp.example.net")
    assert record("DMARC", unsigned).wanted.values == ("v=DMARC1; p=none",)
    assert verdict("DMARC", ("v=DMARC1; p=none",), unsigned) == (Verdict.OK, "")
    for policy in ("quarantine", "reject"):
        found, why = verdict("DMARC", (f"v=DMARC1; p={policy}",), unsigned)
        assert found is Verdict.DIFFERENT and "not DKIM-signed" in why
