"""What we ask of whoever seals secrets: the tenant and the purpose are sealed in, so that no row opens in another's
place."""

from __future__ import annotations

from typing import Protocol

from tinyfat.domain.byok import Sealed


class SecretsError(Exception):
    """A secret could not be sealed or opened."""


class Unopenable(SecretsError):
    """Sealed for another tenant or vendor, damaged, or under a master key we do not have."""


class Envelopes(Protocol):
    @property
    def version(self) -> int:
        """Of the master key that seals now."""

    def seal(self, plain: bytes, tenant: str, purpose: str) -> Sealed: ...

    def open(self, sealed: Sealed, tenant: str, purpose: str) -> bytes:
        """Raises Unopenable."""

    def rewrap(self, sealed: Sealed, tenant: str, purpose: str) -> Sealed:
        """Under the newest master key; the ciphertext stays as it is. Raises Unopenable."""
