"""One secret of a home, and what is derived from it: no derived secret tells another one, nor the first."""

from __future__ import annotations

import hashlib
import hmac


def derived(secret: bytes, purpose: str) -> bytes:
    """32 bytes, always the same for the same secret and purpose (HMAC-SHA256 as a pseudo-random function, RFC 2104)."""
    return hmac.new(secret, purpose.encode(), hashlib.sha256).digest()


def installation_of(secret: bytes) -> str:
    """What tells ours from another installation's at a provider; no secret."""
    return derived(secret, "installation").hex()[:16]
