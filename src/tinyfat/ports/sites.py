"""What we ask of the world about agents' sites: how they look from outside."""

from __future__ import annotations

from typing import Protocol


class Sites(Protocol):
    async def complaint(self, hostname: str, address: str) -> str:
        """ "": at this IP address somebody answers for `hostname` over HTTPS, with a certificate that is valid for it.
        Else why not, for a person. Never raises."""
