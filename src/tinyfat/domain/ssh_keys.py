"""SSH public keys as people paste them (RFC 4253 6.6, sshd(8) AUTHORIZED_KEYS): read strictly, kept in one form."""

from __future__ import annotations

import base64
import binascii
import hashlib
from dataclasses import dataclass

KEYS_MAX = 50  # of one agent: domain/enrolment OWNER_KEYS_MAX is what a machine takes
LINE_CHARS_MAX = 8000
NAME_CHARS_MAX = 100
RSA_BITS_MIN = 2048

# How many length-prefixed parts follow the type's own name in the blob: RFC 4253 6.6, RFC 5656 3.1, RFC 8709 4,
# OpenSSH's PROTOCOL.u2f. DSA is not among them: OpenSSH no longer takes it.
_PARTS = {
    "ssh-ed25519": 1,
    "ssh-rsa": 2,
    "ecdsa-sha2-nistp256": 2,
    "ecdsa-sha2-nistp384": 2,
    "ecdsa-sha2-nistp521": 2,
    "sk-ssh-ed25519@openssh.com": 2,
    "sk-ecdsa-sha2-nistp256@openssh.com": 3,
}


class SshKeyRefused(ValueError):
    """This is no public key for logging in."""


@dataclass(frozen=True, slots=True)
class SshKey:
    public_key: str  # type and base64, nothing else
    name: str  # the comment; "": none

    @property
    def fingerprint(self) -> str:
        """As `ssh-keygen -l` prints it."""
        return fingerprint(self.public_key)


def read_public_key(text: str) -> SshKey:
    """One line: type, base64, comment. Raises SshKeyRefused."""
    if "PRIVATE KEY" in text:
        raise SshKeyRefused("This is a private key: keep it, and give the file that ends in .pub instead.")
    lines = text.strip().splitlines()
    if len(lines) != 1 or len(lines[0]) > LINE_CHARS_MAX:
        raise SshKeyRefused("A public key is one line: the whole content of a file such as ~/.ssh/id_ed25519.pub.")
    kind, _, rest = lines[0].partition(" ")
    if kind not in _PARTS:
        raise SshKeyRefused(f"{kind[:40]!r} begins no public key we know; these do: {', '.join(_PARTS)}.")
    encoded, _, comment = rest.strip().partition(" ")
    _check(kind, encoded)
    name = "".join(character for character in comment.strip() if character.isascii() and character.isprintable())
    return SshKey(f"{kind} {encoded}", name[:NAME_CHARS_MAX])


def fingerprint(public_key: str) -> str:
    """Of `type base64 ...`."""
    digest = hashlib.sha256(base64.b64decode(public_key.split(" ")[1])).digest()
    return "SHA256:" + base64.b64encode(digest).decode("ascii").rstrip("=")


def _check(kind: str, encoded: str) -> None:
    try:
        parts = _strings(base64.b64decode(encoded, validate=True))
    except (binascii.Error, ValueError):
        raise SshKeyRefused(f"The {kind} key is damaged: copy the whole line again.") from None
    if base64.b64encode(base64.b64decode(encoded)).decode("ascii") != encoded or len(parts) != 1 + _PARTS[kind]:
        raise SshKeyRefused(f"The {kind} key is damaged: copy the whole line again.")
    if parts[0] != kind.encode():
        raise SshKeyRefused(f"The key says it is {parts[0][:40]!r}, and its line says {kind}.")
    if kind == "ssh-ed25519" and len(parts[1]) != 32:
        raise SshKeyRefused("The ssh-ed25519 key has not 32 bytes: copy the whole line again.")
    if kind == "ssh-rsa" and int.from_bytes(parts[2], "big").bit_length() < RSA_BITS_MIN:
        raise SshKeyRefused(f"The RSA key has fewer than {RSA_BITS_MIN} bits; make another: ssh-keygen -t ed25519")


def _strings(blob: bytes) -> list[bytes]:
    """RFC 4251 section 5: each with its length before it, and nothing after the last. Raises ValueError."""
    parts = []
    while blob:
        length = int.from_bytes(blob[:4], "big")
        if len(blob) < 4 + length:
            raise ValueError("it ends in the middle")
        parts.append(blob[4 : 4 + length])
        blob = blob[4 + length :]
    return parts
