"""The messages of enrolment, in the hands of somebody hostile."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.box.enrolling import OWNER_KEY, identity
from tinyfat.domain.enrolment import (
    BODY_BYTES_MAX,
    REQUEST_BYTES_MAX,
    EnrolmentRefused,
    input_rules,
    is_public_key,
    read_enrolment,
    read_identity,
    ssh_principal,
    write_identity,
)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)
GOOD = json.loads(write_identity(identity()))


def test_what_is_written_is_read() -> None:
    for wanted in (identity(), identity(agent_name="", owner_keys=(), published=True, ssh_networks=("10.0.0.0/8",))):
        assert read_identity(write_identity(wanted).encode()) == wanted


def test_secrets_are_not_in_its_words() -> None:
    assert "link-token" not in repr(identity())
    assert "PRIVATE" not in repr(identity())


@given(st.binary(max_size=300))
def test_bytes_of_any_kind_are_refused(body: bytes) -> None:
    for read in (read_identity, read_enrolment):
        with pytest.raises(EnrolmentRefused):
            read(body)


@given(st.sampled_from(sorted(GOOD)), JSON)
def test_a_field_of_any_kind_is_refused_or_fits_its_place(name: str, value: Any) -> None:
    """What comes out can be a line of a file: no control character, no second line."""
    try:
        read = read_identity(json.dumps(GOOD | {name: value}).encode())
    except EnrolmentRefused:
        return
    lines = [read.hostname, read.link_url, read.link_token, read.ssh_ca, *read.owner_keys, *read.ssh_networks]
    assert all(line.isprintable() for line in lines)
    assert 0 < read.serial < 2**31


@given(st.dictionaries(st.sampled_from(["machine_id", "token", "key_hash"]), JSON))
def test_an_enrolment_of_any_kind_is_refused_or_small(said: dict[str, Any]) -> None:
    try:
        read = read_enrolment(json.dumps(said).encode())
    except EnrolmentRefused:
        return
    assert len(bytes.fromhex(read.key_hash)) == 32
    assert len(read.machine_id) <= 100


def test_long_ones_are_refused_unread() -> None:
    with pytest.raises(EnrolmentRefused, match="over"):
        read_identity(b" " * (BODY_BYTES_MAX + 1))
    with pytest.raises(EnrolmentRefused, match="over"):
        read_enrolment(b" " * (REQUEST_BYTES_MAX + 1))
    with pytest.raises(EnrolmentRefused):
        read_identity(b"[" * 100_000)


def test_deep_ones_too() -> None:
    with pytest.raises(EnrolmentRefused):
        read_identity(b'{"a":' * 30_000)


@pytest.mark.parametrize(
    "line",
    [
        OWNER_KEY,
        "ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAABAQC7 me@host",
        "ecdsa-sha2-nistp256 AAAAE2VjZHNh",
        "sk-ssh-ed25519@openssh.com AAAAGnNrLXNzaC1lZDI1NTE5QG9wZW5zc2guY29t token",
    ],
)
def test_public_keys(line: str) -> None:
    assert is_public_key(line)


@pytest.mark.parametrize(
    "line",
    [
        "",
        "ssh-ed25519",
        'command="sh" ssh-ed25519 AAAA',
        "ssh-ed25519 AAAA\nssh-ed25519 AAAA",
        "ssh-ed25519 AAAA comment\n",
        "ssh-ed25519 AA AA\x00",
        "cert-authority ssh-ed25519 AAAA",
        "ssh-ed25519 " + "A" * 9000,
    ],
)
def test_no_public_keys(line: str) -> None:
    assert not is_public_key(line)


@given(st.lists(st.text(max_size=30) | st.ip_addresses(network="10.0.0.0/8").map(str), max_size=5), st.booleans())
def test_rules_are_of_networks_alone(networks: list[str], published: bool) -> None:
    try:
        rules = input_rules(networks, published)
    except EnrolmentRefused:
        return
    assert rules.count("\n") <= 4
    assert all(line.endswith(" accept") for line in rules.splitlines())


def test_a_certificate_opens_one_machine() -> None:
    assert ssh_principal("a") != ssh_principal("b")
