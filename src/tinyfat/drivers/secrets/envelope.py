"""Envelope encryption with AES-256-GCM (NIST SP 800-38D): each secret under a random data key of its own, that key
under the master key. Rotating the master key wraps the data keys anew and touches no ciphertext.

Master keys come as text, "VERSION:64 HEX DIGITS" separated by commas or lines; the highest version seals, all open.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from tinyfat.domain.byok import Sealed
from tinyfat.ports.secrets import SecretsError, Unopenable

KEY_BYTES = 32
NONCE_BYTES = 12  # random: one data key seals one secret, and a master key far fewer than 2**32 data keys (8.3)
MASTER_KEYS_MAX = 100
_ENTRY = re.compile(r"([1-9][0-9]{0,8}):([0-9a-fA-F]{64})")


class MasterKeyRefused(SecretsError):
    """The master key cannot be read."""


def new_master_keys(text: str, random: Callable[[int], bytes] = os.urandom) -> str:
    """The keys of `text` (none where it is empty) and, before them, a fresh one: what a rotation writes down."""
    known = _master_keys(text) if text.strip() else {}
    version = max(known, default=0) + 1
    return "\n".join([f"{version}:{random(KEY_BYTES).hex()}", *(f"{v}:{known[v].hex()}" for v in sorted(known)[::-1])])


class EnvelopeSecrets:
    """Raises MasterKeyRefused where the text is not such a list; its words never repeat the text."""

    def __init__(self, master_keys: str, random: Callable[[int], bytes] = os.urandom) -> None:
        self._masters = {version: AESGCM(key) for version, key in _master_keys(master_keys).items()}
        self._newest = max(self._masters)
        self._random = random

    def __repr__(self) -> str:
        return f"EnvelopeSecrets(version={self._newest})"

    @property
    def version(self) -> int:
        return self._newest

    def seal(self, plain: bytes, tenant: str, purpose: str) -> Sealed:
        data_key = self._random(KEY_BYTES)
        ciphertext = self._encrypt(AESGCM(data_key), plain, _bound("secret", tenant, purpose))
        return Sealed(self._newest, self._wrap(data_key, tenant, purpose), ciphertext)

    def open(self, sealed: Sealed, tenant: str, purpose: str) -> bytes:
        data_key = self._unwrap(sealed, tenant, purpose)
        return _decrypt(AESGCM(data_key), sealed.ciphertext, _bound("secret", tenant, purpose))

    def rewrap(self, sealed: Sealed, tenant: str, purpose: str) -> Sealed:
        data_key = self._unwrap(sealed, tenant, purpose)
        return Sealed(self._newest, self._wrap(data_key, tenant, purpose), sealed.ciphertext)

    def _wrap(self, data_key: bytes, tenant: str, purpose: str) -> bytes:
        label = _bound(f"data key {self._newest}", tenant, purpose)
        return self._encrypt(self._masters[self._newest], data_key, label)

    def _unwrap(self, sealed: Sealed, tenant: str, purpose: str) -> bytes:
        master = self._masters.get(sealed.key_version)
        if master is None:
            raise Unopenable(
                f"A secret is sealed under version {sealed.key_version} of the master key, which is not here; "
                "put that line back into master.key (or TINYFAT_MASTER_KEY)."
            )
        label = _bound(f"data key {sealed.key_version}", tenant, purpose)
        return _decrypt(master, sealed.wrapped_key, label)

    def _encrypt(self, cipher: AESGCM, plain: bytes, label: bytes) -> bytes:
        nonce = self._random(NONCE_BYTES)
        return nonce + cipher.encrypt(nonce, plain, label)


def _decrypt(cipher: AESGCM, text: bytes, label: bytes) -> bytes:
    try:
        return cipher.decrypt(text[:NONCE_BYTES], text[NONCE_BYTES:], label)
    except (InvalidTag, ValueError):
        raise Unopenable(
            "A sealed secret does not open: it belongs to another agent or vendor, is damaged, or the master key is "
            "another one. Enter the key anew with `tinyfat byok set`."
        ) from None


def _bound(what: str, tenant: str, purpose: str) -> bytes:
    """Associated data. Each part has its length before it: no two lists of parts give the same bytes."""
    parts = [part.encode() for part in ("tinyfat 1", what, tenant, purpose)]
    return b"".join(len(part).to_bytes(4, "big") + part for part in parts)


def _master_keys(text: str) -> dict[int, bytes]:
    keys: dict[int, bytes] = {}
    for entry in text.replace(",", "\n").split():
        match = _ENTRY.fullmatch(entry)
        if match is None or int(match[1]) in keys or len(keys) >= MASTER_KEYS_MAX:
            raise MasterKeyRefused(
                "The master key is VERSION:64 HEX DIGITS, several with commas or lines, each version once."
            )
        keys[int(match[1])] = bytes.fromhex(match[2])
    if not keys:
        raise MasterKeyRefused("The master key is empty; it is VERSION:64 HEX DIGITS.")
    return keys
