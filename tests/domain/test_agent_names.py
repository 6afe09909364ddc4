"""What an agent may be called."""

from __future__ import annotations

import pytest

from tinyfat.domain.agents import NameRefused, agent_name


@pytest.mark.parametrize(
    "name",
    [
        "mx",
        "mx1",
        "MX2",
        "mx-10",
        "ns",
        "ns1",
        "ns04",
        "smtp",
        "smtp2",
        "imap",
        "imap1",
        "pop",
        "pop3",
        "mail",
        "mail1",
        "www",
        "www2",
        "web1",
        "dns1",
        "relay1",
        "server1",
        "autoconfig",
        "autodiscover",
        "mta-sts",
        "api",
        "admin",
        "console",
        "login",
        "account",
        "auth",
        "oauth",
        "sso",
        "dashboard",
        "my",
        "pay",
        "drive",
        "assets",
        "static",
        "postmaster",
        "abuse",
        "hostmaster",
        "webmaster",
        "noreply",
        "no-reply",
        "mailer-daemon",
        "bounce",
        "billing",
        "wpad",
    ],
)
def test_names_of_a_domains_own_machinery_are_reserved(name: str) -> None:
    with pytest.raises(NameRefused, match="reserved"):
        agent_name(name)


@pytest.mark.parametrize(
    "name",
    [
        "ada",
        "mxa",
        "mx1a",
        "a-mx1",
        "nsa",
        "smtpfan",
        "mailbox",
        "webster",
        "popeye",
        "pop-art",
        "team",
        "office",
        "1",
        "mx12345",
    ],
)
def test_others_are_free(name: str) -> None:
    assert agent_name(f" {name.upper()} ") == name


@pytest.mark.parametrize("name", ["", "-a", "a-", "a.b", "a_b", "xn--a", "*", "@", "a" * 64])
def test_what_is_no_label_is_refused(name: str) -> None:
    with pytest.raises(NameRefused):
        agent_name(name)
