"""Sites as a browser sees them: port 443, TLS with the name, one request (RFC 9110)."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from tinyfat.ports.sites import SiteSeen

PORT = 443
LOOK_SECONDS_MAX = 5.0
LINE_BYTES_MAX = 4096


class HttpsSites:
    """Implements ports/sites Sites."""

    def __init__(self, authorities: Sequence[str] = (), port: int = PORT, seconds: float = LOOK_SECONDS_MAX) -> None:
        """`authorities`: PEM; beside the system's, whom to believe."""
        self._context = ssl.create_default_context()
        for pem in filter(None, authorities):
            self._context.load_verify_locations(cadata=pem)
        self._port, self._seconds = port, seconds

    async def look(self, hostname: str, address: str) -> SiteSeen:
        try:
            async with asyncio.timeout(self._seconds):
                line, certificate = await self._asked(hostname, address)
        except ssl.SSLCertVerificationError as error:
            return SiteSeen(f"its certificate is not valid: {error.verify_message}")
        except TimeoutError:
            return SiteSeen(f"{address} does not answer on port {self._port} within {self._seconds:g} s")
        except (OSError, ValueError) as error:  # ValueError: a line over the limit
            return SiteSeen(f"{address} does not answer on port {self._port} ({type(error).__name__}: {error})")
        complaint = "" if line.startswith("HTTP/1.1 ") else f"{address} answers {line[:100]!r}, which is not HTTP"
        return SiteSeen(complaint, _time(certificate["notBefore"]), _time(certificate["notAfter"]))

    async def _asked(self, hostname: str, address: str) -> tuple[str, dict[str, Any]]:
        """The status line, and the certificate as `ssl` has it."""
        reader, writer = await asyncio.open_connection(
            address, self._port, ssl=self._context, server_hostname=hostname, limit=LINE_BYTES_MAX
        )
        try:
            writer.write(f"HEAD / HTTP/1.1\r\nHost: {hostname}\r\nConnection: close\r\n\r\n".encode("ascii"))
            await writer.drain()
            line = (await reader.readline()).decode("ascii", "replace").strip()
            return line, writer.get_extra_info("peercert")
        finally:
            writer.transport.abort()  # nothing more is wanted of it: no goodbye to wait for


def _time(text: str) -> datetime:
    return datetime.fromtimestamp(ssl.cert_time_to_seconds(text), UTC)
