from __future__ import annotations

import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyfat.domain.mail.addresses import (
    AddressRefused,
    Recipient,
    SenderPatternRefused,
    bounce_address,
    bounce_of,
    owner_address,
    parse_recipient,
    plain_address,
    sender_allowed,
    sender_pattern,
)

SECRET = b"0123456789abcdef"


@pytest.mark.parametrize(
    ("address", "recipient"),
    [
        ("ada@tinyfat.localhost", Recipient("ada", "", "tinyfat.localhost")),
        ("ADA+Project@TinyFat.Localhost", Recipient("ada", "project", "tinyfat.localhost")),
        ('"ada"@t.org', Recipient("ada", "", "t.org")),
        ('"ada+x"@t.org', Recipient("ada", "x", "t.org")),
        ('"\\ada"@t.org', Recipient("ada", "", "t.org")),
        ("<ada@t.org>", Recipient("ada", "", "t.org")),
        ("ada+a+b@t.org", Recipient("ada", "a+b", "t.org")),
        ("ada@t.org.", Recipient("ada", "", "t.org")),
    ],
)
def test_recipients(address: str, recipient: Recipient) -> None:
    assert parse_recipient(address) == recipient


@pytest.mark.parametrize(
    "address",
    [
        "",
        "ada",
        "@t.org",
        "+tag@t.org",
        "a b@t.org",
        '"a b"@t.org',
        "ada@",
        "ada@[127.0.0.1]",
        "a@b@",
        "x" * 400 + "@t.org",
    ],
)
def test_recipients_refused(address: str) -> None:
    with pytest.raises(AddressRefused):
        parse_recipient(address)


@pytest.mark.parametrize(
    ("text", "pattern"),
    [
        ("A@B.c", "a@b.c"),
        (" @Example.ORG ", "@example.org"),
        ("@exämple.org", "@xn--exmple-cua.org"),
        ("a@localhost", "a@localhost"),
    ],
)
def test_patterns(text: str, pattern: str) -> None:
    assert sender_pattern(text) == pattern


@pytest.mark.parametrize(
    "text", ["", "example.org", "*@example.org", "@", "@@x.org", "a@", "Maria <a@b.c>", "a@b c", "@x..y"]
)
def test_patterns_refused_with_what_would_be_right(text: str) -> None:
    with pytest.raises(SenderPatternRefused, match=r"maria@example\.org"):
        sender_pattern(text)


def test_who_is_allowed() -> None:
    patterns = ["maria@example.org", "@friends.org"]
    assert sender_allowed(patterns, "maria@example.org")
    assert sender_allowed(patterns, "anyone@friends.org")
    assert not sender_allowed(patterns, "anyone@sub.friends.org")
    assert not sender_allowed(patterns, "anyone@notfriends.org")
    assert not sender_allowed(patterns, "maria@example.org.evil.org")
    assert not sender_allowed(["", "@"], "")


class TestBounces:
    ID = uuid.UUID(int=0x1234_5678_9ABC_DEF0_1234_5678_9ABC_DEF0)

    def test_there_and_back(self) -> None:
        address = bounce_address("ada", "t.org", str(self.ID), SECRET)
        local, _, domain = address.rpartition("@")
        assert domain == "t.org"
        assert local.startswith("ada+bounce.")
        assert bounce_of(local, SECRET) == self.ID.hex
        assert bounce_of(local.upper(), SECRET) == self.ID.hex
        assert parse_recipient(address).name == "ada"

    def test_the_local_part_fits_for_names_of_21_characters(self) -> None:
        address = bounce_address("a" * 21, "t.org", self.ID.hex, SECRET)
        assert len(address.rpartition("@")[0]) <= 64
        assert plain_address(address) == address

    @given(st.integers(0, 60), st.sampled_from("abcdefghijklmnopqrstuvwxyz234567.+0189"))
    def test_nothing_can_be_changed(self, position: int, character: str) -> None:
        local = bounce_address("ada", "t.org", self.ID.hex, SECRET).rpartition("@")[0]
        position %= len(local)
        changed = local[:position] + character + local[position + 1 :]
        assert (bounce_of(changed, SECRET) == self.ID.hex) == (changed == local)
        assert changed == local or bounce_of(changed, SECRET) is None

    def test_nor_made_by_another(self) -> None:
        local = bounce_address("ada", "t.org", self.ID.hex, b"another secret").rpartition("@")[0]
        assert bounce_of(local, SECRET) is None
        assert bounce_of(local.replace("ada", "bob"), b"another secret") is None

    @given(st.text())
    def test_any_text_is_looked_at(self, text: str) -> None:
        assert bounce_of(text, SECRET) is None


@given(st.text())
def test_any_text_is_an_address_or_none(text: str) -> None:
    address = plain_address(text)
    if address is not None:
        assert plain_address(address) == address
        assert address.isascii()
        assert address.isprintable()
        assert " " not in address
        assert address == address.lower()


@pytest.mark.parametrize("text", ["you@example.org", "you@nottinyfat.example", "Pat <"])
def test_an_owner_is_elsewhere(text: str) -> None:
    if text.endswith("<"):
        with pytest.raises(SenderPatternRefused):
            owner_address(text, "tinyfat.example")
    else:
        assert owner_address(text, "tinyfat.example") == text


@pytest.mark.parametrize("text", ["ada@tinyfat.example", "Ada@TinyFat.Example", "a@b.tinyfat.example", "@example.org"])
def test_an_owner_is_no_agent_and_no_domain(text: str) -> None:
    with pytest.raises(SenderPatternRefused):
        owner_address(text, "tinyfat.example")
