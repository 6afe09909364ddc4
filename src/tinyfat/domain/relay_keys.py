"""Keys by which an agent opens the relay: shown once, kept as a hash."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from datetime import datetime

MARK = "tfk_"  # so that a key found in a log or a repository can be told for what it is
RANDOM_BYTES = 32
PREFIX_CHARS = 12  # shown in lists; 208 bits stay unknown


@dataclass(frozen=True, slots=True)
class RelayKey:
    """A key as it is known once it was shown."""

    id: str
    agent_id: str
    machine_id: str | None  # None: made by hand
    prefix: str
    label: str
    created_at: datetime
    revoked_at: datetime | None = None


def key_from(random: bytes) -> str:
    """The key made of these RANDOM_BYTES random (or derived) bytes."""
    if len(random) != RANDOM_BYTES:
        raise ValueError(f"A key is made of {RANDOM_BYTES} random bytes, not of {len(random)}.")
    return MARK + base64.urlsafe_b64encode(random).decode().rstrip("=")


def key_hash(key: str) -> bytes:
    """SHA-256: a key is 256 random bits, so one round suffices."""
    return hashlib.sha256(key.encode("utf-8", "replace")).digest()
