"""The owner's own key at a vendor of models (BYOK: bring your own key)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime

KEY_CHARS_MAX = 1000
HINT_CHARS = 4
_VENDOR = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,62})")


class VendorKeyRefused(ValueError):
    """This key cannot be used."""


@dataclass(frozen=True, slots=True, repr=False)
class VendorKey:
    """A vendor's key in the clear: it never appears in a log, a trace or an error."""

    value: str

    def __repr__(self) -> str:
        return "VendorKey(...)"

    __str__ = __repr__


@dataclass(frozen=True, slots=True)
class Sealed:
    """A key as it is kept: under a data key of its own, which is under the master key of this version."""

    key_version: int
    wrapped_key: bytes
    ciphertext: bytes


@dataclass(frozen=True, slots=True)
class KnownVendorKey:
    """What may be shown of a kept key."""

    vendor: str
    hint: str  # its last characters
    key_version: int
    created_at: datetime


def vendor_key(vendor: str, text: str) -> VendorKey:
    """The key, looked over. Raises VendorKeyRefused, which never repeats it."""
    if not _VENDOR.fullmatch(vendor):
        raise VendorKeyRefused("A vendor is named in small letters, such as anthropic or openai.")
    key = text.strip()
    if key.startswith("sk-ant-oat"):
        raise VendorKeyRefused(
            "This is a token of an Anthropic subscription (Claude Pro or Max, from `claude setup-token`). Anthropic "
            "allows it in its own programs only and blocks accounts that use it elsewhere. Make an API key at "
            "console.anthropic.com instead; it begins with sk-ant-api."
        )
    if not key or len(key) > KEY_CHARS_MAX or not key.isascii() or not key.isprintable() or " " in key:
        raise VendorKeyRefused(
            f"This is not a key: one line of 1 to {KEY_CHARS_MAX} printable characters without blanks is."
        )
    return VendorKey(key)


def hint(key: VendorKey) -> str:
    """Enough to tell two keys apart; nothing of a short one."""
    return key.value[-HINT_CHARS:] if len(key.value) >= 5 * HINT_CHARS else ""
