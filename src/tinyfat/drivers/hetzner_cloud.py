"""The one way to the Hetzner Cloud API, for machines and for names: the official client, in threads, its errors ours.

What is waited for is bounded: a request by REQUEST_SECONDS_MAX, the budget of requests (ports/requests) by
RATE_WAIT_SECONDS_MAX, and no action is ever waited for: callers look.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import threading
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, TypeVar

import requests
from hcloud import APIException, Client

from tinyfat.domain.request_limits import HETZNER_LIMIT
from tinyfat.drivers.request_budget import LocalBudget, LocalShortages
from tinyfat.ports.dns import DnsRefused, DnsUnreachable
from tinyfat.ports.machines import MachineRefused, MachinesUnreachable
from tinyfat.ports.requests import RequestBudget, RequestsShort, SharedLimits, Shortages, is_ending

CALLS_AT_ONCE = 4
REQUEST_SECONDS_MAX = (5.0, 15.0)  # to connect, and between two bytes of the answer
CLIENT_TRIES_MORE = 1  # after a timeout or a `conflict`, by the client itself
RATE_TRIES = 3
RATE_WAIT_SECONDS_MAX = 3.0  # what takes longer, flows wait for
TOO_MANY_REQUESTS = 429
SERVER_ERROR = 500

T = TypeVar("T")


class Refused(MachineRefused, DnsRefused):
    """The API will not do it as asked."""


class NotFound(Refused):
    """There is no such thing, or not any more."""


class AlreadyThere(Refused):
    """Something has this name already: what we ordered before, or a stranger's."""


class NoRoom(Refused):
    """Not in this location, not of this type, not now."""


class NotOffered(NoRoom):
    """Not of this type in this location, or not with this image, whenever that is asked for."""


class OverLimit(Refused):
    """The project may have no more of it, until Hetzner raises its limit."""


class Unreachable(MachinesUnreachable, DnsUnreachable):
    """No answer, or one that says nothing about what was asked."""


class Busy(Unreachable):
    """The thing is being worked on, or in a state in which it cannot be done yet."""


_BUSY = {
    *("locked", "conflict", "server_not_stopped", "must_be_unassigned", "resource_in_use"),
    # An address on its way from one server to the next:
    *("primary_ip_assigned", "primary_ip_already_assigned", "primary_ip_not_assigned"),
    *("server_has_ipv4", "server_has_ipv6"),
    # A list that is some seconds old, of which firewall a server has:
    *("firewall_already_applied", "firewall_resource_not_found"),
}
_NO_ROOM = {"resource_unavailable", "placement_error"}
_NO_ANSWER = {"rate_limit_exceeded", "service_error", "server_error", "maintenance", "timeout", "bad_gateway"}
_NEXT_STEP = {
    "unauthorized": "set TINYFAT_HETZNER_TOKEN to a token of this project (Hetzner console, Security, API tokens)",
    "forbidden": "make the token with read and write access",
    "token_readonly": "make the token with read and write access",
    "resource_limit_exceeded": "ask Hetzner to raise the project's limit (console, Limits)",
    "protected": "take the protection off in the Hetzner console",
}


# Of an order for a server: an answer of 422, or of a code that we do not know, about these.
_PLACE_FIELDS = {"server_type", "location", "datacenter", "image", "architecture"}
_PLACE_WORDS = re.compile(
    r"\b(server ?types?|locations?|datacenters?|data cent(er|re)s?|network zone|architectures?|sold out|out of stock"
    r"|out of capacity|disk size|image disk)\b",
    re.IGNORECASE,
)
PACES = ((0.5, 1.0), (0.3, 4.0), (0.0, 10.0))  # from how much of the budget on, how slow


class _OverLimit(Exception):
    """A 429: nothing is left now, and one request is given back at a time."""


class _NoAnswer(Exception):
    """A 5xx: whether it was done is not known."""


class HetznerCloud:
    """Raises Refused or Unreachable, or one of their kinds; neither ever shows the token."""

    def __init__(
        self,
        token: str,
        endpoint: str,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._token = token.strip()
        if not self._token.isascii() or not self._token.isprintable() or " " in self._token:
            raise Refused("The Hetzner token holds characters that no token has: copy it anew.")
        self._clock, self._now, self._sleep = clock, now, sleep
        self._threads = ThreadPoolExecutor(CALLS_AT_ONCE, "hetzner")
        self._account = f"hetzner {hashlib.sha256(self._token.encode()).hexdigest()[:16]}"
        self._budget: RequestBudget = LocalBudget(HETZNER_LIMIT, now)
        self.shortages: Shortages = LocalShortages(now)
        self._left = 1.0  # of the whole budget, as last told
        self._heard = _Heard()
        self._client = Client(self._token, endpoint, "tinyfat", timeout=REQUEST_SECONDS_MAX)
        # The client keeps a status to itself where the answer has a code, and tries up to 30 s more: both are set right
        # on the session below it. tests/drivers/test_hetzner_cloud.py sees to it that a new hcloud still has them.
        base = self._client._client
        base._retry_max_retries = CLIENT_TRIES_MORE
        base._session.hooks["response"] = [self._on_response]

    async def call(self, doing: str, ask: Callable[[Client], T]) -> T:
        """`doing` goes on after "Hetzner did not", e.g. "make the server tinyfat-1". `ask` runs in a thread: it must
        read all it wants, as what the client returns may ask the API again."""
        for _ in range(RATE_TRIES):
            await self._admitted(doing)
            try:
                return await self._asked(doing, ask)
            except _OverLimit:
                # Its RateLimit-Reset is no time to wait for: then all of the limit would be there again, in an hour.
                await self._budget.refused(1.0 / HETZNER_LIMIT.per_second)
        raise RequestsShort(f"Hetzner did not {doing}: the project is over its rate limit; it is asked again later.", 1)

    @property
    def pace(self) -> float:
        """How many times as long as usual to wait between two looks: the less of the budget is left, the longer."""
        return next(times for left, times in PACES if self._left >= left)

    async def pause(self, seconds: float) -> None:
        await self._sleep(seconds)

    def share(self, limits: SharedLimits) -> None:
        """From now on all processes count together, and know what there is none of."""
        self._budget = limits.budget(self._account, HETZNER_LIMIT, LocalBudget(HETZNER_LIMIT, self._now))
        self.shortages = limits.shortages(self._account, LocalShortages(self._now))

    async def _admitted(self, doing: str) -> None:
        for _ in range(RATE_TRIES):
            more, left = self._heard.told(self._now())
            wait, self._left = await self._budget.take(is_ending(), more, left)
            if wait == 0:
                return
            if wait > RATE_WAIT_SECONDS_MAX:
                break
            await self._sleep(wait)
        raise RequestsShort(
            f"Hetzner was not asked to {doing}: its limit of requests is nearly used up. It goes on by itself in about "
            f"{max(wait, 1):.0f} s.",
            wait,
        )

    async def _asked(self, doing: str, ask: Callable[[Client], T]) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(
                self._threads, self._heard.counted, ask, self._client
            )
        except _NoAnswer as error:
            raise Unreachable(f"Hetzner did not {doing}: {error}.") from None
        except APIException as error:
            raise self._refusal(doing, error) from None
        except requests.RequestException as error:
            raise Unreachable(f"Hetzner did not {doing}: {_in_words(error)}.") from None
        except (KeyError, TypeError) as error:  # the client found the answer in another shape than it knows
            raise Unreachable(f"Hetzner did not {doing}: its answer cannot be read ({error!r}).") from error

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._client._client._session.close()

    def _on_response(self, response: Any, *_: Any, **__: Any) -> None:
        """It comes before the body was read: a connection that is left so is not used again, and must be closed."""
        self._heard.answer(response.headers, self._now())
        if response.status_code == TOO_MANY_REQUESTS or response.status_code >= SERVER_ERROR:
            response.close()
        if response.status_code == TOO_MANY_REQUESTS:
            raise _OverLimit
        if response.status_code >= SERVER_ERROR:
            raise _NoAnswer(f"it answered {response.status_code}")

    def _refusal(self, doing: str, error: APIException) -> Exception:
        code = str(error.code)
        said = f"Hetzner did not {doing}: {str(error.message).rstrip('.')} ({code})".replace(self._token, "[token]")
        if fields := _fields(error.details):
            said += f", in {fields}"
        if code in _NO_ANSWER:
            return Unreachable(f"{said}.")
        if code in _BUSY:
            return Busy(f"{said}.")
        if code in _NO_ROOM:
            return NoRoom(f"{said}.")
        if code in ("not_found", "404"):
            return NotFound(f"{said}.")
        if code == "uniqueness_error":
            return AlreadyThere(f"{said}.")
        if code == "resource_limit_exceeded":
            return OverLimit(f"{said}; {_NEXT_STEP[code]}.")
        if code not in _NEXT_STEP and _of_the_place(code, str(error.message), _fields(error.details)):
            return NotOffered(f"{said}.")
        return Refused(f"{said}; {_NEXT_STEP[code]}." if code in _NEXT_STEP else f"{said}.")


class _Heard:
    """What the answers said of the rate limit, and how many there were: one call of ours may be several requests."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._answers = 0  # not yet told to the budget
        self._left: tuple[float, float] | None = None  # so many, and when

    def counted(self, ask: Callable[[Client], T], client: Client) -> T:
        """One request of it was taken before."""
        with self._lock:
            self._answers -= 1
        try:
            return ask(client)
        except requests.RequestException:  # no answer: it is counted as one all the same
            with self._lock:
                self._answers += 1
            raise

    def answer(self, headers: Any, now: float) -> None:
        """docs.hetzner.cloud, "Rate Limiting": RateLimit-Remaining is what may still be asked now."""
        with self._lock:
            self._answers += 1
            with suppress(ValueError):
                self._left = float(headers.get("RateLimit-Remaining", "")), now

    def told(self, now: float) -> tuple[int, float | None]:
        """Since it was told last."""
        with self._lock:
            more, self._answers = max(0, self._answers), min(0, self._answers)
            left, self._left = self._left, None
        if left is None:
            return more, None
        return more, left[0] + max(0.0, now - left[1]) * HETZNER_LIMIT.per_second


def _of_the_place(code: str, message: str, fields: str) -> bool:
    """Another type or another location may do: the type is not sold there or not any more, the location takes nothing
    new, the image does not run on it. What is wrong with anything else stays wrong everywhere."""
    if fields:
        return all(field in _PLACE_FIELDS for field in fields.split(", "))
    return bool(_PLACE_WORDS.search(f"{code} {message}".replace("_", " ")))


def _fields(details: Any) -> str:
    """Of an `invalid_input`: the names alone, for the values may be the user-data."""
    found = details.get("fields") if isinstance(details, dict) else None
    if not isinstance(found, list):
        return ""
    return ", ".join(str(field.get("name")) for field in found if isinstance(field, dict))


def _in_words(error: requests.RequestException) -> str:
    if isinstance(error, requests.Timeout):
        return "no answer in time"
    if isinstance(error, requests.exceptions.SSLError):
        return "its certificate is not to be trusted"
    if isinstance(error, requests.ConnectionError):
        return "it cannot be reached"
    return type(error).__name__
