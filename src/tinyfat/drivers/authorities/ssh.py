"""SSH: the keys by which machines are known, and the authority whose certificates open the operator's account on them.

Pure functions of the home's secret (Ed25519: any 32 bytes are a key), so that a machine's host key is known before the
machine exists, and is the same on the next one. Certificates are OpenSSH's (PROTOCOL.certkeys).
"""

from __future__ import annotations

import base64
import textwrap
from collections.abc import Sequence
from datetime import datetime, timedelta

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    SSHCertificateBuilder,
    SSHCertificateType,
    load_ssh_public_key,
)

from tinyfat.domain.secrets import derived

SECONDS_MAX = 24 * 3600  # of a certificate: it cannot be taken back
CLOCK_SECONDS = 60  # by so much a machine's clock may be behind
# What a person at a terminal needs, and no forwarding of agents, ports or X11 (PROTOCOL.certkeys, "Extensions").
EXTENSIONS = (b"permit-pty",)


class SshKeyRefused(ValueError):
    """This is no public key that a certificate can be made for."""


class SshAuthority:
    def __init__(self, secret: bytes) -> None:
        """`secret`: of the home."""
        self._secret = secret
        self._key = Ed25519PrivateKey.from_private_bytes(derived(secret, "ssh authority"))

    @property
    def public_line(self) -> str:
        """For TrustedUserCAKeys (sshd_config(5))."""
        return f"{_public_line(self._key)} tinyfat"

    def host_key(self, name: str) -> tuple[str, str]:
        """(private key in OpenSSH's format, public key as a line of known_hosts has it after the name).

        `name`: the id of the agent, or of the machine while it waits for one.
        """
        key = Ed25519PrivateKey.from_private_bytes(derived(self._secret, f"ssh host key {name}"))
        return _openssh(key), _public_line(key)

    def sign_user(
        self, public_key: str, principals: Sequence[str], seconds: int, key_id: str, serial: int, now: datetime
    ) -> str:
        """A user certificate, one line. `key_id` goes into the machine's own log, `serial` leads from there to ours.

        Raises SshKeyRefused, and ValueError where nobody or too long a time is named.
        """
        if not principals or not 0 < seconds <= SECONDS_MAX:
            raise ValueError(f"A certificate names whom it is for, and lasts {SECONDS_MAX} s at most.")
        try:
            key = load_ssh_public_key(public_key.encode())
            builder = SSHCertificateBuilder().public_key(key)  # type: ignore[arg-type]  # others raise below
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise SshKeyRefused(f"This is no public key of SSH that can be certified: {error}") from None
        builder = (
            builder.type(SSHCertificateType.USER)
            .serial(serial)
            .key_id(key_id.encode())
            .valid_principals([principal.encode() for principal in principals])
            .valid_after(int((now - timedelta(seconds=CLOCK_SECONDS)).timestamp()))
            .valid_before(int((now + timedelta(seconds=seconds)).timestamp()))
        )
        for extension in EXTENSIONS:
            builder = builder.add_extension(extension, b"")
        return builder.sign(self._key).public_bytes().decode("ascii")


def _public_line(key: Ed25519PrivateKey) -> str:
    return key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode("ascii")


def _openssh(key: Ed25519PrivateKey) -> str:
    """OpenSSH's PROTOCOL.key, without a passphrase. Written here because everybody else's writer puts a random number
    where this one puts nothing: the same key is then the same file, and a machine sees that nothing changed."""
    public = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    private = key.private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption())
    public_blob = _strings(b"ssh-ed25519", public)
    secret = bytes(8) + _strings(b"ssh-ed25519", public, private + public, b"")
    secret += bytes(range(1, 1 + -len(secret) % 8))
    blob = b"openssh-key-v1\0" + _strings(b"none", b"none", b"") + (1).to_bytes(4) + _strings(public_blob, secret)
    lines = textwrap.wrap(base64.b64encode(blob).decode("ascii"), 70)
    return "\n".join(["-----BEGIN OPENSSH PRIVATE KEY-----", *lines, "-----END OPENSSH PRIVATE KEY-----", ""])


def _strings(*parts: bytes) -> bytes:
    """RFC 4251 section 5."""
    return b"".join(len(part).to_bytes(4) + part for part in parts)
