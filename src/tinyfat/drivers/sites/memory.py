"""Sites that are entries of a table."""

from __future__ import annotations

from dataclasses import dataclass, field

from tinyfat.ports.sites import SiteSeen


@dataclass(slots=True)
class MemorySites:
    """Implements ports/sites Sites. `shown`: those that answer, by (hostname, address)."""

    shown: dict[tuple[str, str], SiteSeen] = field(default_factory=dict)

    async def look(self, hostname: str, address: str) -> SiteSeen:
        return self.shown.get((hostname, address), SiteSeen(f"{address} does not answer on port 443"))
