"""Sites that are entries of a set."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)
class MemorySites:
    """Implements ports/sites Sites. `shown`: (hostname, address) of those that answer."""

    shown: set[tuple[str, str]] = field(default_factory=set)

    async def complaint(self, hostname: str, address: str) -> str:
        return "" if (hostname, address) in self.shown else f"{address} does not answer on port 443"
