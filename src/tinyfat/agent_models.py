"""How an agent's runtime reaches its model: a key of the relay for its machine, and the API its vendor speaks best."""

from __future__ import annotations

from collections.abc import Sequence

from tinyfat.domain.byok import KnownVendorKey
from tinyfat.domain.link import ModelAccess
from tinyfat.domain.prices import ModelRoute
from tinyfat.domain.relay_keys import key_from
from tinyfat.domain.secrets import derived
from tinyfat.drivers.inference.routes import MAIN
from tinyfat.drivers.inference.vendors import VENDORS
from tinyfat.store.byok import ByokStore
from tinyfat.store.keys import KeyStore

OPENAI, ANTHROPIC = "openai-completions", "anthropic-messages"
MACHINE_LABEL = "its machine's own"
NOBODYS_KEY = "none"  # it opens nothing


class AgentModels:
    def __init__(
        self,
        secret: bytes,
        routes: Sequence[ModelRoute],
        keys: KeyStore,
        byok: ByokStore,
    ) -> None:
        """`secret`: every machine's key is derived from it, so that none needs to be kept but as its hash."""
        self._secret = secret
        self._routes = routes
        self._keys = keys
        self._byok = byok

    async def access(self, agent_id: str, machine_id: str, relay_url: str) -> ModelAccess:
        """Always the same for the same machine, until its key is revoked: then there is another one. `relay_url`: where
        its box reaches the relay, without a path."""
        known = await self._keys.list(agent_id)
        revoked = sum(key.machine_id == machine_id and key.revoked_at is not None for key in known)
        key = key_from(derived(self._secret, f"machine {machine_id} key {revoked}"))
        await self._keys.add(agent_id, key, MACHINE_LABEL, machine_id)
        api = spoken_api(self._routes, paying_vendor(self._routes, await self._byok.list(agent_id)))
        return ModelAccess(api, relay_url + ("" if api == ANTHROPIC else "/v1"), key, MAIN)

    def nobodys(self, relay_url: str) -> ModelAccess:
        """For a machine that waits for an agent: its runtime can start, and calls nothing."""
        api = spoken_api(self._routes, "")
        return ModelAccess(api, relay_url + ("" if api == ANTHROPIC else "/v1"), NOBODYS_KEY, MAIN)


def paying_vendor(routes: Sequence[ModelRoute], kept: Sequence[KnownVendorKey]) -> str:
    """As the ledger chooses: the vendor of `main` where the owner brought its key, else the newest; "": we pay."""
    main = next((route.vendor for route in routes if route.alias == MAIN), "")
    if any(key.vendor == main for key in kept):
        return main
    return max(kept, key=lambda key: key.created_at).vendor if kept else ""


def spoken_api(routes: Sequence[ModelRoute], owner_vendor: str) -> str:
    """Anthropic's own where nobody else answers: only so its cache is used. Else chat completions, which all speak."""
    main = [route for route in routes if route.alias == MAIN]
    if owner_vendor:
        usual = [vendor.api for vendor in VENDORS if vendor.name.lower() == owner_vendor]
        apis = {route.api for route in main if route.vendor == owner_vendor} or set(usual)
    else:
        apis = {route.api for route in main}
    return ANTHROPIC if apis == {ANTHROPIC} else OPENAI
