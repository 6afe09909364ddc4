"""The relay, put together: inside `tinyfat up`, or alone in a process (`tinyfat serve relay`)."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import secrets
import socket
import ssl
import time
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime

from tinyfat.domain.byok import VendorKey
from tinyfat.domain.prices import ModelRoute
from tinyfat.drivers.inference.http import HttpInference
from tinyfat.drivers.inference.prices import known_window
from tinyfat.drivers.inference.routes import MAIN, STANDIN_VENDOR, RouteRefused, vendor_route
from tinyfat.drivers.inference.vendors import VENDORS
from tinyfat.drivers.secrets.envelope import EnvelopeSecrets, MasterKeyRefused
from tinyfat.drivers.secrets.master_key import kept_master_keys
from tinyfat.engine.workers import Workers
from tinyfat.ports.inference import Api, OwnerKeys, Target
from tinyfat.ports.ledger import StoreUnavailable
from tinyfat.ports.usage import UsageLedger
from tinyfat.relay.batches import LedgerDesk
from tinyfat.relay.call_ids import RANDOM_BYTES, CallIds
from tinyfat.relay.calls import Calls
from tinyfat.relay.counting import CountTokens
from tinyfat.relay.models import Models
from tinyfat.relay.server import RelayServer
from tinyfat.relay.trying import try_key
from tinyfat.relay.vendors import Waits
from tinyfat.settings import Settings, SettingsRefused
from tinyfat.store.byok import ByokStore
from tinyfat.store.database import Database
from tinyfat.store.embedded import EmbeddedPostgres
from tinyfat.store.usage import UsageStore

BEAT_SECONDS = 5.0
GARBAGE_THRESHOLDS = (5000, 20, 50)  # `gc.set_threshold`
EVERY_SURFACE = frozenset(("chat", "responses", "embeddings", "messages", "count_tokens"))
# What a vendor offers beyond its API's own surfaces.
_SURFACES = {
    STANDIN_VENDOR: EVERY_SURFACE,
    "fireworks": frozenset(("chat", "responses", "embeddings", "messages")),
}

log = logging.getLogger(__name__)


class Relay:
    """The HTTP side over a usage ledger that somebody else keeps beating."""

    def __init__(self, settings: Settings, ledger: UsageLedger, owners: OwnerKeys, standin_url: str) -> None:
        """Call it inside the running loop. Raises SettingsRefused."""
        now = datetime.now(UTC)
        self.routes = settings.model_routes(standin_url, now)
        keys = settings.vendor_keys(self.routes)
        self.variables_set = frozenset(keys)
        self.models = models_of(self.routes, keys, now)
        self._vendors = HttpInference()
        self._readers = Workers()
        calls = Calls(
            self.models,
            LedgerDesk(ledger),
            self._vendors,
            owners,
            Waits(),
            time.monotonic,
            CallIds(secrets.token_bytes(RANDOM_BYTES), time.time),
            self._readers,
        )
        self._server = RelayServer(calls, self.models, CountTokens(calls))

    async def start(self, listener: socket.socket) -> None:
        await self._server.start(listener)

    async def listen(self, listener: socket.socket, tls: ssl.SSLContext) -> None:
        """On one more socket, for boxes that are on other machines."""
        await self._server.listen(listener, tls)

    async def try_owner_key(self, vendor: str, key: VendorKey) -> str:
        """By one real call. Empty where it works; else why it cannot be used."""
        targets = [*self.models.targets(MAIN, "messages", vendor), *self.models.targets(MAIN, "chat", vendor)]
        if not targets:
            return f"There is no vendor {vendor!r} here; there are: {', '.join(self.owner_vendors)}."
        return await try_key(self._vendors, targets[0], key.value)

    @property
    def owner_vendors(self) -> list[str]:
        """Whose keys an owner can bring."""
        return sorted({*self.models.owners, *(route.vendor for route in self.routes)})

    async def stop(self) -> None:
        await self._server.stop()
        await self._vendors.close()
        await self._readers.close()


class RelayAlone:
    """A relay with a ledger of its own: several of them share one Postgres."""

    def __init__(self, settings: Settings, database_url: str, standin_url: str) -> None:
        """Call it inside the running loop. Raises SettingsRefused."""
        self._database = Database(database_url)
        self._usage = UsageStore(self._database, f"relay/{uuid.uuid4()}")
        master = settings.master_key
        try:
            keys = master.get_secret_value() if master else kept_master_keys(settings.home / "master.key")
            byok = ByokStore(self._database, EnvelopeSecrets(keys))
        except MasterKeyRefused as error:
            raise SettingsRefused(f"TINYFAT_MASTER_KEY: {error}") from None
        self.relay = Relay(settings, self._usage, byok, standin_url)
        self._beating: asyncio.Task[None] | None = None

    async def start(self, listener: socket.socket) -> None:
        """Raises StoreUnavailable."""
        await self._database.open()
        await self._usage.beat()
        self._beating = asyncio.create_task(self._beat(), name="usage beat")
        await self.relay.start(listener)

    async def stop(self) -> None:
        await self.relay.stop()
        if self._beating is not None:
            self._beating.cancel()
            await asyncio.gather(self._beating, return_exceptions=True)
        with contextlib.suppress(StoreUnavailable):  # what is still held is swept
            await self._usage.leave()
        await self._database.close()

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(BEAT_SECONDS)
            try:
                await self._usage.beat()
            except StoreUnavailable:
                log.warning("the database does not answer; the relay makes no calls until it does")


def spare_the_collector() -> None:
    """Once, when all is up. What lives as long as the process is not looked at again: a full collection under load took
    150 ms, and the frequent small ones cost a tenth of the relay's time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GARBAGE_THRESHOLDS)


def embedded_url(settings: Settings) -> str:
    """Of the database that `tinyfat up` keeps in this home."""
    return EmbeddedPostgres(settings.home).url


def models_of(routes: tuple[ModelRoute, ...], keys: Mapping[str, str], now: datetime) -> Models:
    aliases: dict[str, list[Target]] = {}
    for route in routes:
        aliases.setdefault(route.alias, []).append(_target(route, keys.get(route.key_variable, "")))
    return Models(aliases, _owners(now))


def _owners(now: datetime) -> dict[str, Target]:
    """What an owner's own key is used for; a vendor whose usual model has no known price is left out."""
    owners: dict[str, Target] = {}
    for vendor in VENDORS:
        try:
            owners[vendor.name.lower()] = _target(vendor_route(vendor, vendor.model, now), "")
        except RouteRefused as error:
            log.warning("%s", error)
    return owners


def _target(route: ModelRoute, key: str) -> Target:
    surfaces = _SURFACES.get(route.vendor, frozenset[str]())
    window = known_window(route.vendor, route.model)
    return Target(route.vendor, route.model, route.url, Api(route.api), route.prices, key, surfaces, window)
