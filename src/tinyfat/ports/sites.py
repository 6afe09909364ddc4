"""What we ask of the world about agents' sites: how they look from outside."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol


@dataclass(frozen=True, slots=True)
class SiteSeen:
    complaint: str = ""  # why nobody answers there as that site, for a person; "": somebody does
    certificate_from: datetime | None = None  # the time for which its certificate is valid; None where none was seen
    certificate_until: datetime | None = None


class Sites(Protocol):
    async def look(self, hostname: str, address: str) -> SiteSeen:
        """Does somebody answer for `hostname` at this IP address over HTTPS, with a certificate that is valid for it?
        Never raises."""
