"""One budget of requests for each vendor's account, over all flows and all processes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Protocol

from tinyfat.domain.request_limits import RequestLimit
from tinyfat.ports.dns import DnsUnreachable
from tinyfat.ports.machines import MachinesUnreachable

_ENDING: ContextVar[bool] = ContextVar("ending", default=False)


class RequestsShort(MachinesUnreachable, DnsUnreachable):
    """Nothing was asked: the account's limit of requests is nearly used up. Ask again in `seconds`."""

    def __init__(self, words: str, seconds: float) -> None:
        super().__init__(words)
        self.seconds = seconds


@contextmanager
def ending() -> Iterator[None]:
    """What is asked within it ends something, or lets it go: it may use the reserve, so that what costs money ends
    though others have used up the rest."""
    token = _ENDING.set(True)
    try:
        yield
    finally:
        _ENDING.reset(token)


def is_ending() -> bool:
    return _ENDING.get()


class RequestBudget(Protocol):
    async def take(self, ending: bool, more: int = 0, left: float | None = None) -> tuple[float, float]:
        """For one request: seconds to wait before it (0.0: it may be made now, and is counted), and how much of the
        whole budget is left, from 0.0 to 1.0. `more`: requests made since that were not taken; `left`: what the vendor
        said is left by now. Raises nothing: without the database a process counts by itself."""

    async def refused(self, seconds: float) -> None:
        """The vendor answered 429, and gives nothing for so many seconds: until then, and until the reserve is whole
        again, only ends go on, at the pace at which requests are given back."""


class Shortages(Protocol):
    """What a vendor had none of, remembered for all flows: one asks again now and then, and the others do not."""

    async def known(self) -> dict[str, float]:
        """Of each thing it has none of: in how many seconds it is asked for again. 0.0: by whoever asks first."""

    async def probe(self, thing: str) -> bool:
        """This one may ask for it: it is not known to be short, or it is time and nobody else asks. For
        PROBE_SECONDS the others wait for what comes of it."""

    async def short(self, thing: str) -> None:
        """There was none. The pause grows with each time that it was asked for again in vain."""

    async def there(self, thing: str) -> None:
        """There was one."""


class SharedLimits(Protocol):
    """Makes what all processes share. `account`: a vendor's, without a secret; `alone`: where the database does not
    answer."""

    def budget(self, account: str, limit: RequestLimit, alone: RequestBudget) -> RequestBudget: ...
    def shortages(self, account: str, alone: Shortages) -> Shortages: ...
