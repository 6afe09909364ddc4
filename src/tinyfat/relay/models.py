"""Where an alias leads: the operator's table, and for an agent on its owner's key that vendor's own models. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tinyfat.domain.usage import worst_cost
from tinyfat.ports.inference import Api, Target
from tinyfat.relay.shapes.surface import Bound

_SURFACES = {
    Api.OPENAI: frozenset(("chat", "responses", "embeddings")),
    # Anthropic's own compatibility layer answers chat completions, too.
    Api.ANTHROPIC: frozenset(("messages", "count_tokens", "chat")),
}
_ANTHROPIC_SURFACES = ("messages", "count_tokens")


class Models:
    def __init__(self, aliases: Mapping[str, Sequence[Target]], owners: Mapping[str, Target]) -> None:
        """`owners`: vendor -> what an owner's key there is used for, where the alias names nothing of that vendor."""
        self._aliases = {alias: tuple(targets) for alias, targets in aliases.items()}
        self._owners = dict(owners)

    @property
    def owners(self) -> list[str]:
        """The vendors at which an owner's key has a usual model."""
        return list(self._owners)

    @property
    def names(self) -> list[str]:
        return list(self._aliases)

    def table_vendor(self, alias: str) -> str:
        """Whom the operator's table names first; empty where the alias is unknown."""
        of_alias = self._aliases.get(alias, ())
        return of_alias[0].vendor if of_alias else ""

    def targets(self, alias: str, surface: str, owner_vendor: str) -> tuple[Target, ...]:
        """In the order they are tried. None where the alias is unknown or nothing of it serves this surface."""
        of_alias = self._aliases.get(alias, ())
        if owner_vendor and of_alias:
            own = tuple(target for target in of_alias if target.vendor == owner_vendor)
            usual = self._owners.get(owner_vendor)
            of_alias = own or ((usual,) if usual is not None else ())
        return tuple(target for target in of_alias if surface in (target.surfaces or _SURFACES[target.api]))


def worst(bounds: Sequence[tuple[Target, Bound]]) -> int:
    """Nano-dollars: the most the call can cost, wherever it is answered."""
    costs = [worst_cost(b.input, b.output, target.prices.at(b.input), b.hour, b.written) for target, b in bounds]
    return max(costs, default=0)


def url_of(target: Target, path: str) -> str:
    """A base URL ends where the vendor's own client wants it: before or after /v1, or at a folder of another name."""
    base = target.url.rstrip("/")
    if base.endswith("/v1") or target.api is Api.OPENAI:
        return base + path.removeprefix("/v1")
    return base + path


def key_headers(target: Target, surface: str, key: str) -> dict[str, str]:
    if not key:
        return {}
    if surface not in _ANTHROPIC_SURFACES:
        return {"authorization": f"Bearer {key}"}
    if target.api is Api.ANTHROPIC:
        return {"x-api-key": key}
    return {"authorization": f"Bearer {key}", "x-api-key": key}
