"""Servers on, off and away. An action that was accepted says nothing: it is asked for again until the server agrees."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from hcloud import Client
from hcloud.servers import Server as ApiServer

from tinyfat.domain.machines import MachineState
from tinyfat.drivers.hetzner_cloud import Busy, HetznerCloud, NotFound
from tinyfat.drivers.machines.hetzner.fleet import Fleet
from tinyfat.drivers.machines.hetzner.seen import Server

FORCE_SECONDS = 30.0  # after which a server that was asked to shut down is cut off
ASK_AGAIN_SECONDS = 5.0  # flows look twice a second: the rate limit is not theirs alone
ASKED_MAX = 10_000


@dataclass(frozen=True, slots=True)
class _Asked:
    first: float
    last: float


class Power:
    def __init__(self, cloud: HetznerCloud, fleet: Fleet, clock: Callable[[], float]) -> None:
        self._cloud, self._fleet, self._clock = cloud, fleet, clock
        self._asked: dict[tuple[str, int], _Asked] = {}

    async def off(self, server: Server) -> None:
        """First as with its power button, then as with its plug."""
        if server.seen().state is MachineState.STOPPED:
            self._forget("off", server)
            return
        asked = self._asked.get(("off", server.id))
        if asked is None:
            await self._ask("off", server, "shut down", lambda client, one: client.servers.shutdown(one))
        elif self._clock() - asked.first >= FORCE_SECONDS and self._due(asked):
            await self._ask("off", server, "cut off", lambda client, one: client.servers.power_off(one))

    async def on(self, server: Server) -> None:
        self._forget("off", server)
        if server.seen().state is MachineState.RUNNING:
            self._forget("on", server)
        elif self._due(self._asked.get(("on", server.id))):
            await self._ask("on", server, "start", lambda client, one: client.servers.power_on(one))

    async def delete(self, server: Server) -> None:
        if server.status != "deleting" and self._due(self._asked.get(("delete", server.id))):
            await self._ask("delete", server, "delete", lambda client, one: client.servers.delete(one))

    def _due(self, asked: _Asked | None) -> bool:
        return asked is None or self._clock() - asked.last >= ASK_AGAIN_SECONDS

    def _forget(self, what: str, server: Server) -> None:
        self._asked.pop((what, server.id), None)

    async def _ask(self, key: str, server: Server, doing: str, ask: Callable[[Client, ApiServer], object]) -> None:
        """Where another action is under way nothing is asked; the next call asks again."""
        try:
            await self._cloud.call(f"{doing} the server {server.name}", lambda it: ask(it, ApiServer(server.id)))
        except (NotFound, Busy):
            return
        finally:
            self._fleet.changed()
        if len(self._asked) >= ASKED_MAX:
            self._asked.pop(next(iter(self._asked)))
        known = self._asked.get((key, server.id))
        self._asked[key, server.id] = _Asked(known.first if known else self._clock(), self._clock())
