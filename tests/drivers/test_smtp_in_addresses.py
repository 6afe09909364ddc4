"""The short way to read an address in MAIL and RCPT answers as aiosmtpd's parser does."""

from __future__ import annotations

from unittest.mock import patch

import pytest
from aiosmtpd.smtp import SMTP
from hypothesis import given
from hypothesis import strategies as st

from tinyfat.drivers.mail.smtp_session import CONTROLS, PLAIN_PATH, SmtpSession

_PARAMETERS = st.sampled_from(["", " ", " SIZE=10", "  BODY=8BITMIME SMTPUTF8", "x", " NOTIFY=NEVER"])
_WORDS = st.text(st.sampled_from("abXYZ019.+-_='\"<>@ ,;:\\()[]\t\r\u00e4"), max_size=12)


def _read(argument: str) -> tuple[str | None, str | None]:
    return SmtpSession._getaddr(_bare(), argument)


def _bare() -> SmtpSession:
    return SmtpSession.__new__(SmtpSession)  # no connection, no loop: reading an address needs neither


def _parsed(argument: str) -> tuple[str | None, str | None]:
    """By the parser alone, whose own failures are syntax errors to us, as controls are, which it takes."""
    if CONTROLS.search(argument):
        return None, None
    try:
        return SMTP._getaddr(_bare(), argument)
    except Exception:
        return None, None


@given(_WORDS, _WORDS, _PARAMETERS)
def test_both_ways_agree(local: str, domain: str, parameters: str) -> None:
    argument = f"<{local}@{domain}>{parameters}"
    assert _read(argument) == _parsed(argument)


@given(
    st.from_regex(r"[a-z0-9_+=-]{1,9}(\.[A-Z0-9]{1,9}){0,3}", fullmatch=True),
    st.from_regex(r"[a-z0-9-]{1,9}(\.[A-Z0-9-]{1,9}){0,3}", fullmatch=True),
    _PARAMETERS,
)
def test_both_ways_agree_on_ordinary_addresses(local: str, domain: str, parameters: str) -> None:
    argument = f"<{local}@{domain}>{parameters}"
    assert _read(argument) == _parsed(argument)


@pytest.mark.parametrize(
    "argument",
    [
        "<>",
        "<a@b",
        "a@b",
        "<@relay:a@b>",
        '<"a b"@c>',
        "<a@[127.0.0.1]>",
        "<a..b@c>",
        "<.a@b>",
        "<a@b>SIZE=1",
        "<a@b >",
    ],
)
def test_what_is_not_plain_is_left_to_the_parser(argument: str) -> None:
    assert not PLAIN_PATH.match(argument)
    assert _read(argument) == _parsed(argument)


def test_a_plain_address_costs_no_parser() -> None:
    with patch.object(SMTP, "_getaddr", side_effect=AssertionError("asked")):
        assert _read("<ada+boats@tinyfat.localhost> SIZE=4500") == ("ada+boats@tinyfat.localhost", "SIZE=4500")
