"""Vendors in memory, by a script: what each call is answered with, and what was asked."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field

from tinyfat.ports.inference import Answer, Call, VendorCut, VendorUnreachable


@dataclass(frozen=True, slots=True)
class Scripted:
    """One answer. `cut`: it breaks off after its pieces."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    pieces: Sequence[bytes] = ()
    cut: bool = False


class Unreachable:
    """Nobody answers."""


class MemoryInference:
    """Calls to one URL are answered by its script, in order, the last one again and again. No script: unreachable."""

    def __init__(self, scripts: Mapping[str, Sequence[Scripted | Unreachable]]) -> None:
        self._scripts = {url: list(script) for url, script in scripts.items()}
        self.calls: list[Call] = []
        self.closed = 0

    async def open(self, call: Call) -> Answer:
        self.calls.append(call)
        script = self._scripts.get(call.url, [])
        scripted = (script.pop(0) if len(script) > 1 else script[0]) if script else Unreachable()
        if isinstance(scripted, Unreachable):
            raise VendorUnreachable(f"nobody is at {call.url}")
        if scripted.status < 400 and not any(scripted.pieces):
            raise VendorUnreachable(f"{call.url} ended before its first byte")
        return _MemoryAnswer(self, scripted)

    async def close(self) -> None:
        self._scripts.clear()


class _MemoryAnswer:
    def __init__(self, vendors: MemoryInference, scripted: Scripted) -> None:
        self._vendors, self._scripted = vendors, scripted
        self.status = scripted.status
        self.headers: Mapping[str, str] = {name.lower(): value for name, value in scripted.headers.items()}

    async def pieces(self) -> AsyncIterator[bytes]:
        for piece in self._scripted.pieces:
            yield piece
        if self._scripted.cut:
            raise VendorCut("cut by the script")

    def close(self) -> None:
        self._vendors.closed += 1
