"""A zone at Cloudflare, by its documented API (developers.cloudflare.com/api, "DNS Records"): one entry a record.

Records are made with `proxied` off: behind their proxy there is no SSH and no mail.
"""

from __future__ import annotations

import hashlib
import ssl
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx2

from tinyfat.domain.names import RecordSet, RecordType
from tinyfat.domain.request_limits import CLOUDFLARE_LIMIT
from tinyfat.drivers.dns.zone_names import of_zone, wanted_set
from tinyfat.drivers.request_budget import LocalBudget
from tinyfat.ports.dns import DnsRefused, DnsUnreachable
from tinyfat.ports.requests import RequestBudget, RequestsShort, SharedLimits, is_ending
from tinyfat.recipes.zone_text import canonical_set, plain, quoted, unquoted

REQUEST_SECONDS_MAX = 15.0
RETRY_SECONDS = 300.0  # after a 429 without a word on it
PER_PAGE = 100
PAGES_MAX = 200
TTL_AUTOMATIC = 1  # Cloudflare's word for 300 seconds
TTL_AUTOMATIC_SECONDS = 300
ALREADY_THERE = {81057, 81058}
NO_SUCH_RECORD = 81044
WRONG_TOKEN = {6003, 6111, 9106, 9109, 10000}
TOO_MANY_REQUESTS, SERVER_ERROR = 429, 500
_OURS = frozenset(RecordType)


@dataclass(frozen=True, slots=True)
class _Entry:
    id: str
    name: str
    kind: RecordType
    value: str  # as we write it
    ttl: int
    proxied: bool


class _Failed(Exception):
    """Cloudflare's answer was no."""

    def __init__(self, status: int, codes: set[int], message: str) -> None:
        super().__init__(message)
        self.status, self.codes = status, codes


class CloudflareDns:
    """Implements ports/dns Dns. The token needs "Zone: Read" and "DNS: Edit" for this zone."""

    def __init__(self, token: str, zone: str, endpoint: str) -> None:
        self._token, self.zone, self._endpoint = token.strip(), plain(zone), endpoint.rstrip("/")
        self._tls = ssl.create_default_context()
        self._zone_id = ""
        self._account = f"cloudflare {hashlib.sha256(self._token.encode()).hexdigest()[:16]}"
        self._budget: RequestBudget = LocalBudget(CLOUDFLARE_LIMIT, time.time)

    def share(self, limits: SharedLimits) -> None:
        """From now on all processes count together."""
        alone = LocalBudget(CLOUDFLARE_LIMIT, time.time)
        self._budget = limits.budget(self._account, CLOUDFLARE_LIMIT, alone)

    async def put(self, wanted: RecordSet) -> None:
        """Entries that are wrong become right ones, so that a name with one address is never without."""
        found = wanted_set(self.zone, wanted)
        async with self._api() as api:
            there = await self._entries(api, found.name, found.kind)
            right = [one for one in there if one.value in found.values and one.ttl == found.ttl and not one.proxied]
            kept = {one.value: one for one in right}
            wrong = [one for one in there if one not in kept.values()]
            for value in (value for value in found.values if value not in kept):
                same = next((one for one in wrong if one.value == value), None) or next(iter(wrong), None)
                if same is not None:
                    wrong.remove(same)
                await self._write(api, same, found, value)
            for one in wrong:
                await self._delete(api, one)

    async def look(self, name: str, kind: RecordType) -> RecordSet | None:
        async with self._api() as api:
            found = _sets(await self._entries(api, of_zone(self.zone, name), kind))
        return found[0] if found else None

    async def remove(self, name: str, kind: RecordType) -> None:
        async with self._api() as api:
            for one in await self._entries(api, of_zone(self.zone, name), kind):
                await self._delete(api, one)

    async def kinds_at(self, name: str) -> Sequence[str]:
        found = of_zone(self.zone, name)
        async with self._api() as api:
            answers = self._pages(api, {"name": found})
            return sorted({str(one["type"]) async for one in answers if plain(str(one["name"])) == found})

    async def all(self) -> Sequence[RecordSet]:
        async with self._api() as api:
            return _sets(await self._entries(api))

    @asynccontextmanager
    async def _api(self) -> AsyncIterator[httpx2.AsyncClient]:
        """One for each call of ours: its connections belong to one event loop, this driver to none."""
        headers = {"Authorization": f"Bearer {self._token}"}
        try:
            async with httpx2.AsyncClient(
                base_url=self._endpoint,
                headers=headers,
                timeout=REQUEST_SECONDS_MAX,
                verify=self._tls,
                event_hooks={"request": [self._admit], "response": [self._heard]},
            ) as api:
                if not self._zone_id:
                    self._zone_id = await self._find_zone(api)
                yield api
        except _Failed as error:
            raise self._refusal(error) from None
        except (httpx2.HTTPError, ValueError, KeyError, TypeError) as error:
            raise DnsUnreachable(f"Cloudflare gave no answer for {self.zone}: {type(error).__name__}.") from None

    async def _admit(self, request: httpx2.Request) -> None:
        wait, _ = await self._budget.take(is_ending())
        if wait > 0:
            raise RequestsShort(
                f"Cloudflare was not asked about {self.zone}: its limit of requests is nearly used up. It goes on by "
                f"itself in about {max(wait, 1):.0f} s.",
                wait,
            )

    async def _heard(self, response: httpx2.Response) -> None:
        if response.status_code == TOO_MANY_REQUESTS:
            said = response.headers.get("Retry-After", "")
            await self._budget.refused(float(said) if said.isdigit() else RETRY_SECONDS)

    async def _find_zone(self, api: httpx2.AsyncClient) -> str:
        answer = await _ask(api, "GET", "/zones", params={"name": self.zone})
        for one in answer["result"]:
            if one["name"] == self.zone:
                return str(one["id"])
        raise DnsRefused(
            f"Cloudflare shows no zone {self.zone} to this token: add the zone, or give the token Zone: Read and DNS: "
            "Edit for it."
        )

    async def _entries(self, api: httpx2.AsyncClient, name: str = "", kind: RecordType | None = None) -> list[_Entry]:
        wanted = {"name": name, "type": str(kind)} if kind else {}
        found = [_entry(one) async for one in self._pages(api, wanted) if one["type"] in _OURS]
        return [one for one in found if kind is None or (one.name == name and one.kind is kind)]

    async def _pages(self, api: httpx2.AsyncClient, wanted: dict[str, str]) -> AsyncIterator[dict[str, Any]]:
        params = {"per_page": str(PER_PAGE)} | wanted
        for page in range(1, PAGES_MAX + 1):
            answer = await _ask(api, "GET", self._path(), params=params | {"page": str(page)})
            for one in answer["result"]:
                yield one
            if page >= int(answer["result_info"]["total_pages"]):
                break

    async def _write(self, api: httpx2.AsyncClient, there: _Entry | None, wanted: RecordSet, value: str) -> None:
        body = _body(wanted, value)
        try:
            if there is None:
                await _ask(api, "POST", self._path(), json=body)
            else:
                await _ask(api, "PATCH", self._path(there.id), json=body)
        except _Failed as error:
            if not error.codes & ALREADY_THERE:
                raise

    async def _delete(self, api: httpx2.AsyncClient, one: _Entry) -> None:
        try:
            await _ask(api, "DELETE", self._path(one.id))
        except _Failed as error:
            if NO_SUCH_RECORD not in error.codes:
                raise

    def _path(self, record_id: str = "") -> str:
        return f"/zones/{self._zone_id}/dns_records" + (f"/{record_id}" if record_id else "")

    def _refusal(self, error: _Failed) -> Exception:
        said = f"Cloudflare refused for {self.zone}: {error}".replace(self._token, "[token]").rstrip(".")
        if NO_SUCH_RECORD in error.codes:
            return DnsUnreachable(f"{said}: it was changed by somebody else meanwhile.")
        if error.status == TOO_MANY_REQUESTS or error.status >= SERVER_ERROR:
            return DnsUnreachable(f"{said}; it is asked again later.")
        if error.status in (401, 403) or error.codes & WRONG_TOKEN:
            return DnsRefused(f"{said}; give TINYFAT_DNS_TOKEN a token with Zone: Read and DNS: Edit for this zone.")
        return DnsRefused(f"{said}.")


async def _ask(api: httpx2.AsyncClient, method: str, path: str, **more: Any) -> dict[str, Any]:
    response = await api.request(method, path, **more)
    try:
        answer = response.json()
        assert isinstance(answer, dict)
    except (ValueError, AssertionError):
        raise _Failed(response.status_code, set(), f"status {response.status_code}") from None
    if response.is_success and answer.get("success"):
        return answer
    errors = [error for error in answer.get("errors") or [] if isinstance(error, dict)]
    words = "; ".join(f"{error.get('message')} ({error.get('code')})" for error in errors)
    codes = {int(error["code"]) for error in errors if str(error.get("code")).isdigit()}
    raise _Failed(response.status_code, codes, words or f"status {response.status_code}")


def _entry(one: dict[str, Any]) -> _Entry:
    kind, content = RecordType(one["type"]), str(one["content"])
    if kind is RecordType.TXT:
        content = unquoted(content)
    elif kind is RecordType.MX:
        content = f"{one['priority']} {content}"
    name = plain(str(one["name"]))
    (value,) = canonical_set(RecordSet(name, kind, (content,))).values
    ttl = int(one["ttl"])
    return _Entry(
        str(one["id"]),
        name,
        kind,
        value,
        TTL_AUTOMATIC_SECONDS if ttl == TTL_AUTOMATIC else ttl,
        bool(one.get("proxied")),
    )


def _body(wanted: RecordSet, value: str) -> dict[str, object]:
    body: dict[str, object] = {"type": wanted.kind, "name": wanted.name, "ttl": wanted.ttl, "content": value}
    match wanted.kind:
        case RecordType.A | RecordType.AAAA:
            body["proxied"] = False
        case RecordType.CNAME:
            body |= {"content": plain(value), "proxied": False}
        case RecordType.NS:
            body["content"] = plain(value)
        case RecordType.MX:
            preference, exchange = value.split()
            body |= {"content": plain(exchange), "priority": int(preference)}
        case RecordType.TXT:
            body["content"] = quoted(value)
    return body


def _sets(entries: Sequence[_Entry]) -> list[RecordSet]:
    """An RRset has one TTL (RFC 2181 section 5.2): where entries differ, the lowest."""
    grouped: dict[tuple[str, RecordType], list[_Entry]] = {}
    for one in entries:
        grouped.setdefault((one.name, one.kind), []).append(one)
    return [
        RecordSet(name, kind, tuple(sorted({one.value for one in some})), min(one.ttl for one in some))
        for (name, kind), some in grouped.items()
    ]
