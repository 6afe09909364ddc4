"""Our servers as the provider lists them, and what to make of one that is not on the list."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from hcloud import Client

from tinyfat.drivers.hetzner_cloud import HetznerCloud, NotFound, Refused
from tinyfat.drivers.machines.hetzner.labels import MACHINE, Labels, server_name
from tinyfat.drivers.machines.hetzner.listing import Answers, Listing
from tinyfat.drivers.machines.hetzner.seen import Server, server_of

LISTING_SECONDS = 2.0
LOOKED_FOR_TIMES = 2.0  # as long as a list stands what a look by name or id said of what no list has
LISTED_SECONDS = 20.0  # within it, a server that was made is on the provider's lists
ORDERS_REMEMBERED_MAX = 10_000


class Foreign(Refused):
    """A server has the name we would give, and not our labels."""


class Fleet:
    def __init__(
        self,
        cloud: HetznerCloud,
        labels: Labels,
        clock: Callable[[], float],
        listing_seconds: float = LISTING_SECONDS,
        listed_seconds: float = LISTED_SECONDS,
    ) -> None:
        self._cloud, self._labels, self._clock = cloud, labels, clock
        self._listed_seconds = listed_seconds
        self._listing = Listing(cloud, "list its servers", partial(_list, labels.selector()), clock, listing_seconds)
        self._answers = Answers(cloud, clock, listing_seconds * LOOKED_FOR_TIMES)
        self._born = clock()
        self._ordered: dict[str, tuple[float, int | None]] = {}  # machine id -> when, and as which server

    async def all(self) -> tuple[Server, ...]:
        """Those labelled ours. Never from before `changed`."""
        return await self._listing.all()

    def changed(self) -> None:
        """Something was asked for: what was read before says nothing about it."""
        self._listing.changed()

    def ordered(self, machine_id: str, server_id: int | None = None) -> None:
        """It is being made: from now on the lists may not know it yet."""
        if len(self._ordered) >= ORDERS_REMEMBERED_MAX:
            self._ordered.pop(next(iter(self._ordered)))
        self._ordered[machine_id] = self._clock(), server_id
        self._answers.forget(machine_id)
        self.changed()

    def deleted(self, machine_id: str) -> None:
        self._ordered.pop(machine_id, None)
        self._answers.forget(machine_id)
        self.changed()

    def may_be_unlisted(self, machine_id: str) -> bool:
        """It was ordered so lately, here or by a process that is no more, that a list without it says nothing."""
        since, _ = self._ordered.get(machine_id, (self._born, None))
        return self._clock() - since < self._listed_seconds

    async def of(self, machine_id: str) -> tuple[Server, ...]:
        """Its servers: one, or none by list, by id and by name. Raises Foreign."""
        if found := tuple(one for one in await self.all() if one.labels.get(MACHINE) == machine_id):
            return found
        _, server_id = self._ordered.get(machine_id, (0.0, None))
        return await self._answers.get(machine_id, lambda: self._unlisted(machine_id, server_id))

    async def _unlisted(self, machine_id: str, server_id: int | None) -> tuple[Server, ...]:
        if server_id is not None and (server := await self._by_id(server_id)):
            return (self._own(server, machine_id),)
        return await self._by_name(machine_id)

    async def with_id(self, server_id: int) -> Server | None:
        """Anybody's."""
        for one in await self.all():
            if one.id == server_id:
                return one
        return await self._by_id(server_id)

    async def _by_id(self, server_id: int) -> Server | None:
        try:
            return await self._cloud.call(
                "show a server", lambda client: server_of(client.servers.get_by_id(server_id))
            )
        except NotFound:
            return None

    async def _by_name(self, machine_id: str) -> tuple[Server, ...]:
        name = server_name(machine_id)
        servers = await self._cloud.call(
            f"look for {name}", lambda client: [server_of(one) for one in client.servers.get_list(name=name).servers]
        )
        return tuple(self._own(one, machine_id) for one in servers)

    def _own(self, server: Server, machine_id: str) -> Server:
        if self._labels.ours(server.labels) and server.labels.get(MACHINE) == machine_id:
            return server
        labels = ", ".join(f"{key}={text}" for key, text in self._labels.all_of(machine=machine_id).items())
        raise Foreign(
            f"At Hetzner the server {server.name} ({server.id}) has the name we give and not our labels: give them "
            f"back to it ({labels}), or rename or delete it in the console."
        )


def _list(selector: str, client: Client) -> list[Server]:
    return [server_of(one) for one in client.servers.get_all(label_selector=selector)]
