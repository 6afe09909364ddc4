"""Vendors in memory, by a script: what each call is answered with, and what was asked."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field

from tinyfat.ports.inference import Answer, Call, Sent, VendorCut, VendorUnreachable


@dataclass(frozen=True, slots=True)
class Scripted:
    """One answer. `cut`: it breaks off after its pieces."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    pieces: Sequence[bytes] = ()
    cut: bool = False


class Unreachable:
    """Nobody answers. `silent`: somebody took the call, and said nothing."""

    def __init__(self, silent: bool = False) -> None:
        self.silent = silent


class MemoryInference:
    """Calls to one URL are answered by its script, in order, the last one again and again. No script: unreachable."""

    def __init__(self, scripts: Mapping[str, Sequence[Scripted | Unreachable]]) -> None:
        self._scripts = {url: list(script) for url, script in scripts.items()}
        self.calls: list[Call] = []
        self.closed = 0

    async def send(self, call: Call) -> Sent:
        return _MemorySent(self, call)

    async def open(self, call: Call) -> Answer:
        self.calls.append(call)
        script = self._scripts.get(call.url, [])
        scripted = (script.pop(0) if len(script) > 1 else script[0]) if script else Unreachable()
        if isinstance(scripted, Unreachable):
            raise VendorUnreachable(f"nobody is at {call.url}", scripted.silent)
        if scripted.status < 400 and not any(scripted.pieces):
            raise VendorUnreachable(f"{call.url} ended before its first byte")
        return _MemoryAnswer(self, scripted)

    async def close(self) -> None:
        self._scripts.clear()


class _MemorySent:
    def __init__(self, vendors: MemoryInference, call: Call) -> None:
        self._vendors, self._call = vendors, call

    async def answer(self) -> Answer:
        return await self._vendors.open(self._call)

    def close(self) -> None:
        """Nothing is kept."""


class _MemoryAnswer:
    def __init__(self, vendors: MemoryInference, scripted: Scripted) -> None:
        self._vendors, self._scripted = vendors, scripted
        self._at, self._pieces = 0, [piece for piece in scripted.pieces if piece]
        self.status = scripted.status
        self.headers: Mapping[str, str] = {name.lower(): value for name, value in scripted.headers.items()}

    async def pieces(self) -> AsyncIterator[bytes]:
        while piece := await self.next():
            yield piece

    async def next(self) -> bytes:
        self._at += 1
        if self._at <= len(self._pieces):
            return self._pieces[self._at - 1]
        if self._scripted.cut:
            raise VendorCut("cut by the script")
        return b""

    def close(self) -> None:
        self._vendors.closed += 1
