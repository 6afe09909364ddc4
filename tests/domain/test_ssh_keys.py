"""Public keys as people paste them."""

from __future__ import annotations

import base64

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from tinyfat.domain.enrolment import is_public_key
from tinyfat.domain.ssh_keys import SshKeyRefused, fingerprint, read_public_key

ED25519 = Ed25519PrivateKey.from_private_bytes(bytes(32))


def line(key: object) -> str:
    return key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()  # type: ignore[attr-defined,no-any-return]


@pytest.mark.parametrize(
    "key",
    [ED25519, rsa.generate_private_key(65537, 2048), *map(ec.generate_private_key, (ec.SECP256R1(), ec.SECP521R1()))],
    ids=lambda key: type(key).__name__,
)
def test_what_ssh_keygen_makes_is_taken(key: object) -> None:
    read = read_public_key(f"  {line(key)} ada@laptop (work)\n")
    assert (read.public_key, read.name) == (line(key), "ada@laptop (work)")
    assert read.fingerprint == fingerprint(line(key)) and read.fingerprint.startswith("SHA256:")
    assert is_public_key(read.public_key)


def test_a_known_fingerprint() -> None:
    """As `ssh-keygen -lf` says of this key."""
    assert fingerprint(line(ED25519)) == "SHA256:tAXFyTXI8xtDaujAEcwJslAYc9/6FKcUkd2Lw0xDhPo"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "one line"),
        ("ssh-ed25519", "damaged"),
        ("hello world", "begins no public key"),
        (f"{line(ED25519)}\n{line(ED25519)}", "one line"),
        (f'command="rm -rf /" {line(ED25519)}', "begins no public key"),
        (line(ED25519)[:-4], "damaged"),
        (line(ED25519).replace("ssh-ed25519", "ssh-rsa"), "damaged"),
        (line(ED25519).replace("ssh-ed25519", "ecdsa-sha2-nistp256"), "damaged"),
        (line(rsa.generate_private_key(65537, 1024)), "2048"),
        (line(ED25519).replace("ssh-ed25519", "ssh-dss"), "begins no public key"),
        (
            ED25519.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()).decode(),
            "private key",
        ),
        ("ssh-ed25519 " + "A" * 9000, "one line"),
    ],
    ids=range(12),
)
def test_what_is_none_is_refused_in_words(text: str, words: str) -> None:
    with pytest.raises(SshKeyRefused, match=words):
        read_public_key(text)


@given(st.text(max_size=200) | st.binary(max_size=100).map(lambda raw: f"ssh-ed25519 {base64.b64encode(raw).decode()}"))
def test_whatever_comes_is_a_key_or_refused(text: str) -> None:
    try:
        key = read_public_key(text)
    except SshKeyRefused:
        return
    assert is_public_key(key.public_key) and key.name.isprintable() and "\n" not in key.public_key


def test_what_is_taken_stays_one_line_whatever_its_comment() -> None:
    key = read_public_key(f"{line(ED25519)} caf\u00e9 \x1b[31m\u200bevil")
    assert key.name.isascii() and key.name.isprintable()
