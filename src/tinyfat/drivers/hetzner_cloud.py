"""The one way to the Hetzner Cloud API, for machines and for names: the official client, in threads, its errors ours.

What is waited for is bounded: a request by REQUEST_SECONDS_MAX, the rate limit (3,600 requests an hour, given back one
a second: docs.hetzner.cloud, "Rate Limiting") by RATE_WAIT_SECONDS_MAX, and no action is ever waited for: callers look.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import requests
from hcloud import APIException, Client

from tinyfat.ports.dns import DnsRefused, DnsUnreachable
from tinyfat.ports.machines import MachineRefused, MachinesUnreachable

CALLS_AT_ONCE = 4
REQUEST_SECONDS_MAX = (5.0, 15.0)  # to connect, and between two bytes of the answer
CLIENT_TRIES_MORE = 1  # after a timeout or a `conflict`, by the client itself
RATE_TRIES = 3
RATE_WAIT_SECONDS_MAX = 3.0  # three requests are given back in that time
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


class _OverLimit(Exception):
    def __init__(self, seconds: float) -> None:
        super().__init__("over the rate limit")
        self.seconds = seconds


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
        self._not_before = 0.0
        self._client = Client(self._token, endpoint, "tinyfat", timeout=REQUEST_SECONDS_MAX)
        # The client keeps a status to itself where the answer has a code, and tries up to 30 s more: both are set right
        # on the session below it. tests/drivers/test_hetzner_cloud.py sees to it that a new hcloud still has them.
        base = self._client._client
        base._retry_max_retries = CLIENT_TRIES_MORE
        base._session.hooks["response"] = [self._on_response]

    async def call(self, doing: str, ask: Callable[[Client], T]) -> T:
        """`doing` goes on after "Hetzner did not", e.g. "make the server tinyfat-1". `ask` runs in a thread: it must
        read all it wants, as what the client returns may ask the API again."""
        loop = asyncio.get_running_loop()
        for _ in range(RATE_TRIES):
            if (wait := self._not_before - self._clock()) > 0:
                await self._sleep(min(wait, RATE_WAIT_SECONDS_MAX))
            try:
                return await loop.run_in_executor(self._threads, ask, self._client)
            except _OverLimit as error:
                self._not_before = self._clock() + min(error.seconds, RATE_WAIT_SECONDS_MAX)
            except _NoAnswer as error:
                raise Unreachable(f"Hetzner did not {doing}: {error}.") from None
            except APIException as error:
                raise self._refusal(doing, error) from None
            except requests.RequestException as error:
                raise Unreachable(f"Hetzner did not {doing}: {_in_words(error)}.") from None
            except (KeyError, TypeError) as error:  # the client found the answer in another shape than it knows
                raise Unreachable(f"Hetzner did not {doing}: its answer cannot be read ({error!r}).") from error
        raise Unreachable(f"Hetzner did not {doing}: the project is over its rate limit; it is asked again later.")

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._client._client._session.close()

    def _on_response(self, response: Any, *_: Any, **__: Any) -> None:
        """It comes before the body was read: a connection that is left so is not used again, and must be closed."""
        if response.status_code == TOO_MANY_REQUESTS or response.status_code >= SERVER_ERROR:
            response.close()
        if response.status_code == TOO_MANY_REQUESTS:
            raise _OverLimit(self._seconds_to_reset(response.headers.get("RateLimit-Reset", "")))
        if response.status_code >= SERVER_ERROR:
            raise _NoAnswer(f"it answered {response.status_code}")

    def _seconds_to_reset(self, header: str) -> float:
        """The header is a Unix time; without it a second is waited, in which one request is given back."""
        try:
            return max(1.0, float(header) - self._now())
        except ValueError:
            return 1.0

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
        return Refused(f"{said}; {_NEXT_STEP[code]}." if code in _NEXT_STEP else f"{said}.")


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
