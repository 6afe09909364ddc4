"""Where there is no room, as all flows have been told: of a type in a location one asks again now and then."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from tinyfat.drivers.hetzner_cloud import HetznerCloud, NoRoom, NotOffered, OverLimit
from tinyfat.drivers.machines.hetzner.choice import TYPES_TRIED_MAX, Offer
from tinyfat.ports.machines import MachineRefused, MachinesFull

PROJECT = "server of this project"  # it has as many as Hetzner lets it have


class Room:
    def __init__(self, cloud: HetznerCloud) -> None:
        self._cloud = cloud

    async def known_in(self, places: Sequence[Offer]) -> None:
        """Raises MachinesFull where an order for one of these would not be asked."""
        known = await self._cloud.shortages.known()
        places = places[:TYPES_TRIED_MAX]  # those that it would ask for
        short = [known.get(_thing(place), 0.0) for place in places]
        if known.get(PROJECT, 0.0) <= 0.0 and (not short or min(short) <= 0.0):
            return
        again = max(known.get(PROJECT, 0.0), min(short, default=0.0))
        words = ", ".join(_thing(place) for place in places)
        raise MachinesFull(f"Hetzner had no room a moment ago ({words}); it is asked again in {again:.0f} s.", again)

    def round(self) -> Round:
        """For one order."""
        return Round(self._cloud)


class Round:
    """The places that one order tries."""

    def __init__(self, cloud: HetznerCloud) -> None:
        self._cloud = cloud
        self._tried: list[tuple[Offer, Exception]] = []
        self._known: list[Offer] = []
        self._counted: Counter[str] = Counter()  # by location
        self._limit: OverLimit | None = None

    async def asks(self, place: Offer) -> bool:
        """This place is to be asked for now, by this order."""
        if self._limit is not None or self._counted[place.location] >= TYPES_TRIED_MAX:
            return False
        if await self._cloud.shortages.probe(PROJECT) and await self._cloud.shortages.probe(_thing(place)):
            return True
        self._known.append(place)
        self._counted[place.location] += 1
        return False

    async def there(self, place: Offer) -> None:
        await self._cloud.shortages.there(_thing(place))
        await self._cloud.shortages.there(PROJECT)

    async def short(self, place: Offer, error: NoRoom | OverLimit) -> None:
        if isinstance(error, OverLimit):
            self._limit = error
            await self._cloud.shortages.short(PROJECT)
            return
        self._tried.append((place, error))
        if isinstance(error, NotOffered):
            return  # no shortage: the next type is tried instead, however many are not sold there
        self._counted[place.location] += 1
        await self._cloud.shortages.short(_thing(place))

    def full(self, name: str) -> MachineRefused:
        """Nothing is left to try."""
        if self._limit is not None:
            return MachineRefused(str(self._limit))
        words = f"Hetzner has no room for the server {name}."
        if self._tried:
            words += f" Tried: {', '.join(_thing(place) for place, _ in self._tried)}. The last answer: "
            words += str(self._tried[-1][1])
        if self._known:
            words += f" Known to have none: {', '.join(_thing(place) for place in self._known)}."
        return MachinesFull(words)


def _thing(place: Offer) -> str:
    return f"{place.type} in {place.location}"
