"""The bodies of requests, read: of a known key alone, for so long, so large, and so many at once."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Mapping
from dataclasses import dataclass

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

BODY_BYTES_MAX = 32 * 1024 * 1024  # of one request, unpacked: images travel in it
BODIES_BYTES_MAX = 256 * 1024 * 1024  # of all requests under way
BODIES_BYTES_PER_KEY_MAX = 96 * 1024 * 1024  # so one agent does not keep the others out
BODY_SECONDS_MAX = 60.0
UNPACKING_MAX = 2  # at once
PACKED_RATIO_MAX = 200  # texts become a tenth; what becomes less than a two-hundredth was made to
UNPACKED_BYTES_FREE = 1024 * 1024  # up to here any ratio is fine
_PACKED_WITH = {"gzip": 16 + zlib.MAX_WBITS, "x-gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class TooMuch(Exception):
    """The request is refused; `status` and the text are for the client."""

    def __init__(self, status: int, words: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(words)
        self.status = status
        self.headers = headers or {}


@dataclass(slots=True)
class Place:
    """Of one request's body: how many bytes of it are held."""

    key: bytes
    size: int = 0


class Bodies:
    def __init__(self) -> None:
        self._size = 0
        self._of_key: dict[bytes, int] = {}
        self._unpacking = asyncio.Semaphore(UNPACKING_MAX)

    def place(self, key: bytes) -> Place:
        return Place(key)

    def leave(self, place: Place) -> None:
        self._size -= place.size
        left = self._of_key.get(place.key, 0) - place.size
        if left > 0:
            self._of_key[place.key] = left
        else:
            self._of_key.pop(place.key, None)

    async def read(self, request: web.BaseRequest, place: Place) -> bytes:
        """Of a request whose key is known. `place` says how many bytes are held, also where it raises TooMuch."""
        packed = _packing(request)
        if (request.content_length or 0) > BODY_BYTES_MAX:
            raise TooMuch(413, f"The request is over {BODY_BYTES_MAX} bytes.")
        await _go_on(request)
        body = await self._whole(request, place)
        return body if packed is None else await self._unpacked(body, packed, place)

    async def _whole(self, request: web.BaseRequest, place: Place) -> bytes:
        if request.content.is_eof():  # all there, as small ones mostly are: no timer is needed
            body = request.content.read_nowait()
            self._take(len(body), place)
            return body
        pieces: list[bytes] = []
        try:
            async with asyncio.timeout(BODY_SECONDS_MAX):
                while piece := await request.content.readany():
                    self._take(len(piece), place)
                    pieces.append(piece)
        except TimeoutError:
            raise TooMuch(408, f"The request did not arrive within {BODY_SECONDS_MAX:g} s.") from None
        except (web.RequestPayloadError, HttpProcessingError):
            raise TooMuch(400, "The request's body is no valid HTTP.") from None
        return b"".join(pieces)

    def _take(self, size: int, place: Place) -> None:
        """Raises TooMuch."""
        place.size += size
        self._size += size
        of_key = self._of_key[place.key] = self._of_key.get(place.key, 0) + size
        if place.size > BODY_BYTES_MAX:
            raise TooMuch(413, f"The request is over {BODY_BYTES_MAX} bytes.")
        if self._size > BODIES_BYTES_MAX or of_key > BODIES_BYTES_PER_KEY_MAX:
            raise TooMuch(503, "Too much is being asked at once; try again in a moment.", {"retry-after": "2"})

    async def _unpacked(self, body: bytes, packed: int, place: Place) -> bytes:
        """In a thread: zlib holds no lock of ours. What it may become is taken before it is."""
        most = min(BODY_BYTES_MAX, max(UNPACKED_BYTES_FREE, len(body) * PACKED_RATIO_MAX))
        async with self._unpacking:
            unpacked = await asyncio.to_thread(_unpack, body, packed, most)
        self._take(max(0, len(unpacked) - len(body)), place)
        return unpacked


def _packing(request: web.BaseRequest) -> int | None:
    """zlib's word for it; None where the body is as it is."""
    codings = [
        coding for line in request.headers.getall("content-encoding", []) for part in line.split(",")
        if (coding := part.strip().lower()) and coding != "identity"
    ]  # fmt: skip
    if not codings:
        return None
    if len(codings) > 1 or codings[0] not in _PACKED_WITH:
        # RFC 9110, 15.5.16: the answer says what would be taken.
        words = f"A body in {', '.join(codings)[:40]!r} is not read here; send it as it is, or in gzip."
        raise TooMuch(415, words, {"accept-encoding": "gzip, deflate, identity"})
    return _PACKED_WITH[codings[0]]


async def _go_on(request: web.BaseRequest) -> None:
    """RFC 9110, 10.1.1: a client that expects it sends its body only when it hears that it is wanted."""
    expected = request.headers.get("expect", "")
    if not expected or request.version < (1, 1):
        return
    if expected.lower() != "100-continue":
        raise TooMuch(417, "Of expectations only 100-continue is met here.")
    if request.transport is not None and not request.content.is_eof():
        request.transport.write(_CONTINUE)


def _unpack(body: bytes, packed: int, most: int) -> bytes:
    """Raises TooMuch."""
    for window in (packed, -zlib.MAX_WBITS) if packed == zlib.MAX_WBITS else (packed,):
        unpacker = zlib.decompressobj(window)
        try:
            unpacked = unpacker.decompress(body, most + 1)
        except zlib.error:
            continue  # "deflate" is sent without zlib's frame, too
        if len(unpacked) > most:
            raise TooMuch(413, f"The request is over {most} bytes when it is unpacked.")
        if unpacker.eof and not unpacker.unused_data:
            return unpacked
    raise TooMuch(400, "The request's body is not packed as it says.")
