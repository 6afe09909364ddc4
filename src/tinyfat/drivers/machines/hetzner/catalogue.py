"""What the provider has to offer: types and prices, read anew every few minutes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from decimal import Decimal

from hcloud import Client

from tinyfat.drivers.hetzner_cloud import HetznerCloud
from tinyfat.drivers.machines.hetzner.choice import ARCHITECTURE, Offer, offers_of, places
from tinyfat.drivers.machines.hetzner.prices import Prices, prices_of

READ_AGAIN_SECONDS = 300.0  # what is sold out changes within minutes, prices within months
FULL_SECONDS = 600.0  # where nothing was to be had, nothing is looked for so long


class Catalogue:
    def __init__(
        self, cloud: HetznerCloud, size: str, locations: Sequence[str], euro: Decimal, clock: Callable[[], float]
    ) -> None:
        self._cloud, self._size, self._euro, self._clock = cloud, size, euro, clock
        self.locations = tuple(locations)
        self._offers: tuple[float, list[Offer]] | None = None
        self._prices: tuple[float, Prices] | None = None
        self._full: dict[str, float] = {}  # location -> since when

    async def places(
        self, size: str, locations: Sequence[str], architecture: str = ARCHITECTURE, disk_gb: float = 0
    ) -> list[Offer]:
        """What to try, best first. Raises MachineRefused where nothing fits."""
        ordered = sorted(locations or self.locations, key=self._seems_full)
        return places(await self.offers(), size or self._size, ordered, architecture, disk_gb)

    async def offers(self) -> list[Offer]:
        if self._offers is None or self._clock() - self._offers[0] > READ_AGAIN_SECONDS:
            read = await self._cloud.call("list its types of servers", _offers)
            self._offers = self._clock(), read
        return self._offers[1]

    async def prices(self) -> Prices:
        if self._prices is None or self._clock() - self._prices[0] > READ_AGAIN_SECONDS:
            answer = await self._cloud.call("show its prices", lambda client: client.request("GET", "/pricing"))
            self._prices = self._clock(), prices_of(answer, self._euro)
        return self._prices[1]

    def full(self, location: str) -> None:
        """Nothing was to be had there."""
        self._full[location] = self._clock()

    def _seems_full(self, location: str) -> bool:
        since = self._full.get(location)
        return since is not None and self._clock() - since < FULL_SECONDS


def _offers(client: Client) -> list[Offer]:
    return [offer for kind in client.server_types.get_all() for offer in offers_of(kind)]
