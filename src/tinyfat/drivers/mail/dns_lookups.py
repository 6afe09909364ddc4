"""DNS for proving senders: blocking (it runs in threads), briefly cached, bounded for each mail."""

from __future__ import annotations

import ipaddress
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import dns.exception
import dns.nameserver
import dns.resolver

CACHE_SECONDS = 60.0  # short, so that an owner who mends a record need not wait
CACHE_ENTRIES_MAX = 5_000
LOOKUPS_MAX = 40  # for one mail: SPF's own limits (RFC 7208 4.6.4), five keys, two policies, and room for CNAMEs
TRY_SECONDS = 2.0  # before the next nameserver is asked
TXT_BYTES_MAX = 2_048  # a 4096-bit key takes 750; a longer record is made to cost
DNS_PORT = 53

Values = tuple[object, ...]


class TemporaryDnsError(Exception):
    """No nameserver gave an answer in time."""


class LookupsSpent(Exception):
    """This mail's records ask for more lookups than we do: they always will."""


def nameserver(text: str) -> dns.nameserver.Do53Nameserver:
    """ "192.0.2.1", "192.0.2.1:5353", "2001:db8::1" or "[2001:db8::1]:5353". Raises ValueError."""
    host, port = text.strip(), str(DNS_PORT)
    if host.startswith("["):
        host, _, rest = host[1:].partition("]")
        port = rest.removeprefix(":") or port
    elif host.count(":") == 1:
        host, _, port = host.partition(":")
    try:
        address = str(ipaddress.ip_address(host))
    except ValueError as error:
        raise ValueError(f"{text!r} is not a nameserver: give its IP address, or IP:PORT.") from error
    if not port.isdecimal() or not 0 < int(port) < 65_536:
        raise ValueError(f"{text!r} is not a nameserver: {port!r} is no port.")
    return dns.nameserver.Do53Nameserver(address, int(port))


class DnsResolver:
    """Asks the given nameservers, or the system's where none are given. Safe to share between threads."""

    def __init__(
        self,
        nameservers: tuple[str, ...] | None,
        timeout_seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._resolver = _resolver(nameservers, timeout_seconds)
        self.timeout_seconds = timeout_seconds
        self.clock = clock
        self._cache: dict[tuple[str, str], tuple[float, Values]] = {}
        self._lock = threading.Lock()

    def resolve(self, name: str, kind: str, seconds: float) -> Values:
        """The records' values; () where there are none. Raises TemporaryDnsError."""
        key = (name.lower().rstrip("."), kind)
        with self._lock:
            expires, known = self._cache.get(key, (0.0, ()))
        if expires > self.clock():
            return known
        values = self._ask(name, kind, seconds)
        with self._lock:
            while len(self._cache) >= CACHE_ENTRIES_MAX:
                self._cache.pop(next(iter(self._cache)))
            self._cache[key] = (self.clock() + CACHE_SECONDS, values)
        return values

    def _ask(self, name: str, kind: str, seconds: float) -> Values:
        try:
            answer = self._resolver.resolve(name, kind, lifetime=seconds, raise_on_no_answer=False, search=False)
        except (dns.resolver.NXDOMAIN, dns.resolver.YXDOMAIN):
            return ()
        except (dns.exception.Timeout, dns.resolver.NoNameservers, dns.resolver.NoResolverConfiguration) as error:
            raise TemporaryDnsError(f"{kind} of {name}: {type(error).__name__}") from error
        except (dns.exception.DNSException, ValueError):  # not a name that could be asked for
            return ()
        return tuple(_value(record, kind) for record in answer.rrset or ())


def _resolver(nameservers: tuple[str, ...] | None, timeout_seconds: float) -> dns.resolver.Resolver:
    try:
        resolver = dns.resolver.Resolver(configure=nameservers is None)
    except dns.resolver.NoResolverConfiguration:
        resolver = dns.resolver.Resolver(configure=False)
    if nameservers is not None:
        resolver.nameservers = [nameserver(one) for one in nameservers]
    resolver.timeout = min(TRY_SECONDS, timeout_seconds)
    return resolver


def _value(record: Any, kind: str) -> object:
    """In the shapes pyspf asks for: addresses as text, MX as (preference, name), TXT as its strings."""
    match kind:
        case "TXT":
            return tuple(record.strings)
        case "MX":
            return record.preference, record.exchange.to_text(omit_final_dot=True)
        case "PTR":
            return record.target.to_text(omit_final_dot=True)
        case _:
            return record.address


@dataclass(slots=True)
class Lookups:
    """What one mail may ask. Not shared between threads."""

    resolver: DnsResolver
    seconds: float = 0.0  # for all of them; 0: the resolver's timeout
    deadline: float = field(init=False)
    left: int = LOOKUPS_MAX

    def __post_init__(self) -> None:
        self.deadline = self.resolver.clock() + (self.seconds or self.resolver.timeout_seconds)

    def values(self, name: str, kind: str) -> Values:
        """Raises TemporaryDnsError, also where this mail's time is over; LookupsSpent where it has asked too much."""
        seconds = self.deadline - self.resolver.clock()
        if self.left == 0:
            raise LookupsSpent(f"{kind} of {name}: this mail has used up its lookups")
        if seconds <= 0:
            raise TemporaryDnsError(f"{kind} of {name}: this mail has used up its time")
        self.left -= 1
        return self.resolver.resolve(name, kind, seconds)

    def txt(self, name: str) -> list[bytes]:
        """TXT records joined to one string each (RFC 7208 3.3), the overlong left out."""
        joined = [b"".join(strings) for strings in self.values(name, "TXT") if isinstance(strings, tuple)]
        return [text for text in joined if len(text) <= TXT_BYTES_MAX]
