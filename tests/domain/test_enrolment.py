"""The messages of enrolment, in the hands of somebody hostile."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.box.enrolling import OWNER_KEY, identity, own_site
from tinyfat.domain.enrolment import (
    BODY_BYTES_MAX,
    COMPLAINT_CHARS_MAX,
    REQUEST_BYTES_MAX,
    EnrolmentRefused,
    SiteTls,
    input_rules,
    is_public_key,
    read_enrolment,
    read_identity,
    read_outcome,
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
    for wanted in (
        identity(),
        identity(agent_name="", owner_keys=(), ssh_networks=("10.0.0.0/8",)),
        identity(site=own_site()),
        identity(site=SiteTls(acme_url="https://acme.example.org:14000/dir", acme_ca=own_site().certificate)),
    ):
        assert read_identity(write_identity(wanted).encode()) == wanted


def test_secrets_are_not_in_its_words() -> None:
    assert "link-token" not in repr(identity())
    assert "PRIVATE" not in repr(identity(site=own_site()))


@given(st.binary(max_size=300))
def test_bytes_of_any_kind_are_refused(body: bytes) -> None:
    for read in (read_identity, read_enrolment, read_outcome):
        with pytest.raises(EnrolmentRefused):
            read(body)


@given(st.sampled_from(sorted(GOOD)), JSON)
def test_a_field_of_any_kind_is_refused_or_fits_its_place(name: str, value: Any) -> None:
    """What comes out can be a line of a file: no control character, no second line."""
    try:
        read = read_identity(json.dumps(GOOD | {name: value}).encode())
    except EnrolmentRefused:
        return
    assert read.site is None or name == "site"
    lines = [read.hostname, read.link_url, read.link_token, read.ssh_ca, *read.owner_keys, *read.ssh_networks]
    assert all(line.isprintable() for line in lines)
    assert 0 < read.serial < 2**31


@given(st.fixed_dictionaries({}, optional=dict.fromkeys(("certificate", "key", "acme_url", "acme_ca"), JSON)))
def test_a_site_of_any_kind_is_refused(said: dict[str, Any]) -> None:
    with pytest.raises(EnrolmentRefused):
        read_identity(json.dumps(GOOD | {"site": said}).encode())


@pytest.mark.parametrize(
    "change",
    [
        {"key": ""},
        {"certificate": ""},
        {"acme_url": "https://acme.example.org/dir"},
        {"certificate": "", "key": "", "acme_url": "http://acme.example.org/dir"},
        {"certificate": "", "key": "", "acme_url": "https://acme.example.org/dir }\n\trespond x"},
        {"certificate": "", "key": "", "acme_url": "https://acme.example.org/{$HOME}"},
        {"certificate": "", "key": "", "acme_url": "https://acme.example.org/dir", "acme_ca": "/etc/shadow"},
        {"certificate": "-----BEGIN CERTIFICATE-----\n}\n-----END CERTIFICATE-----\n"},
        {"key": "-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----\n"},
    ],
)
def test_a_site_that_makes_no_sense_is_refused(change: dict[str, str]) -> None:
    said = {"certificate": own_site().certificate, "key": own_site().key, "acme_url": "", "acme_ca": ""}

    assert read_identity(json.dumps(GOOD | {"site": said}).encode()).site == own_site()
    with pytest.raises(EnrolmentRefused):
        read_identity(json.dumps(GOOD | {"site": said | change}).encode())


@pytest.mark.parametrize("seconds", [0, -1, 4, 86_401, True, "60", None, 60.0])
def test_a_pace_that_makes_no_sense_is_refused(seconds: object) -> None:
    assert read_identity(json.dumps(GOOD | {"again_seconds": 60}).encode()).again_seconds == 60
    with pytest.raises(EnrolmentRefused, match="again_seconds"):
        read_identity(json.dumps(GOOD | {"again_seconds": seconds}).encode())


@given(st.dictionaries(st.sampled_from(["serial", "complaint"]), JSON))
def test_an_outcome_of_any_kind_is_refused_or_can_be_shown(said: dict[str, Any]) -> None:
    try:
        read = read_outcome(json.dumps(said).encode())
    except EnrolmentRefused:
        return
    assert read.complaint.isprintable() and len(read.complaint) <= COMPLAINT_CHARS_MAX
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
    assert rules.count("\n") <= 3
    assert ("443" in rules) is published
    assert all(line.endswith(" accept") for line in rules.splitlines())


def test_a_certificate_opens_one_machine() -> None:
    assert ssh_principal("a") != ssh_principal("b")
