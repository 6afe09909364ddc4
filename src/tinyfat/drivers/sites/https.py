"""Sites as a browser sees them: port 443, TLS with the name, one request (RFC 9110)."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Sequence

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

    async def complaint(self, hostname: str, address: str) -> str:
        try:
            async with asyncio.timeout(self._seconds):
                line = await self._status_line(hostname, address)
        except ssl.SSLCertVerificationError as error:
            return f"its certificate is not valid: {error.verify_message}"
        except TimeoutError:
            return f"{address} does not answer on port {self._port} within {self._seconds:g} s"
        except (OSError, ValueError) as error:  # ValueError: a line over the limit
            return f"{address} does not answer on port {self._port} ({type(error).__name__}: {error})"
        return "" if line.startswith("HTTP/1.1 ") else f"{address} answers {line[:100]!r}, which is not HTTP"

    async def _status_line(self, hostname: str, address: str) -> str:
        reader, writer = await asyncio.open_connection(
            address, self._port, ssl=self._context, server_hostname=hostname, limit=LINE_BYTES_MAX
        )
        try:
            writer.write(f"HEAD / HTTP/1.1\r\nHost: {hostname}\r\nConnection: close\r\n\r\n".encode("ascii"))
            await writer.drain()
            return (await reader.readline()).decode("ascii", "replace").strip()
        finally:
            writer.transport.abort()  # nothing more is wanted of it: no goodbye to wait for
