"""HOST:PORT, as settings say where to listen."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit


@dataclass(frozen=True, slots=True)
class Address:
    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def address(value: object) -> Address:
    """Raises ValueError, saying what one looks like."""
    if isinstance(value, Address):
        return value
    text = str(value)
    parts = urlsplit(f"//{text}")
    try:
        if parts.hostname and parts.port and not parts.path and not parts.username:
            return Address(parts.hostname, parts.port)
    except ValueError:
        pass
    raise ValueError(f"{text!r} is not HOST:PORT, such as 127.0.0.1:2525")
