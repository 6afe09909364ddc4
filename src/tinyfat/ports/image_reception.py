"""Where a machine of an image's making calls in place of the control plane: one at a time, in no ledger."""

from __future__ import annotations

from typing import Protocol

from tinyfat.domain.link import Status
from tinyfat.domain.machines import MachineOrder
from tinyfat.domain.turns import TurnResult


class Reception(Protocol):
    def expect(
        self, machine_id: str, runtime: str, image: str, runtime_sha256: str = "", makes: str = ""
    ) -> MachineOrder:
        """What the machine is made from. From now on it is let in, and whoever was before is not. `image` "": the
        provider's plain one; `runtime_sha256`: what it fetches before its box starts, "": nothing; `makes`: the image
        that comes of it, "": it tries the one it is made from."""

    @property
    def status(self) -> Status | None:
        """The box's last word; None before its first."""

    @property
    def last_lines(self) -> str:
        """Of its log, for a person."""

    async def ask(self, turn_id: str, text: str) -> None:
        """The agent is asked, again after each reconnect, until it has answered."""

    @property
    def result(self) -> TurnResult | None: ...

    async def seal(self) -> None:
        """From now on it is told to forget who it was, and to end: only its power tells whether it did."""
