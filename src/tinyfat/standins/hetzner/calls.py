"""One request and its answer, apart from HTTP: what was sent, pages of lists, and what every collection can do."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from tinyfat.standins.hetzner import errors
from tinyfat.standins.hetzner.actions import begin
from tinyfat.standins.hetzner.cloud import Cloud
from tinyfat.standins.hetzner.labels import selector, wrong_label
from tinyfat.standins.hetzner.resources import Action
from tinyfat.standins.hetzner.views import action_wire
from tinyfat.standins.lies import LieName

PER_PAGE_DEFAULT = 25
PER_PAGE_MAX = 50
NAME_CHARS_MAX = 255

Wire = dict[str, Any]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Call:
    cloud: Cloud
    path: Mapping[str, str]
    query: Mapping[str, Sequence[str]]
    body: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    body: Wire | None = None
    pages: Mapping[str, int] = field(default_factory=dict)  # rel: number; for the Link header


Handler = Callable[[Call], Awaitable[Answer]]
ApiRoute = tuple[str, str, Handler]


@dataclass(frozen=True, slots=True)
class Collection:
    plural: str  # in paths, in answers, and in Cloud
    singular: str
    wire: Callable[[Cloud, Any], Wire]

    def all(self, cloud: Cloud) -> dict[int, Any]:
        found: dict[int, Any] = getattr(cloud, self.plural)
        return found


def take(body: Mapping[str, Any], name: str, kind: type[T], default: T | None = None) -> T:
    """A field of the body. Raises ApiError where it is missing and has no default, or is of another type."""
    value = body.get(name)
    if value is None and default is not None:
        return default
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise errors.invalid(name, "is missing" if value is None else f"must be of type {kind.__name__}")
    return value


def take_name(body: Mapping[str, Any]) -> str:
    name = take(body, "name", str)
    if not 1 <= len(name) <= NAME_CHARS_MAX:
        raise errors.invalid("name", f"must have 1 to {NAME_CHARS_MAX} characters")
    return name


def take_labels(body: Mapping[str, Any]) -> dict[str, str]:
    labels = body.get("labels") or {}
    if why := wrong_label(labels):
        raise errors.invalid("labels", why)
    return dict(labels)


def unused_name(call: Call, collection: Collection, name: str, but: int = 0) -> str:
    if any(each.name == name and each.id != but for each in collection.all(call.cloud).values()):
        raise errors.taken(collection.singular.replace("_", " "), "name")
    return name


def find(call: Call, collection: Collection, parameter: str = "id") -> Any:
    """The resource that the path names. Raises ApiError."""
    text = call.path[parameter]
    found = collection.all(call.cloud).get(int(text)) if text.isdecimal() else None
    if found is None:
        raise errors.not_found(collection.singular, text)
    return found


def actions_wire(cloud: Cloud, actions: Sequence[Action]) -> list[Wire]:
    return [action_wire(cloud, action) for action in actions]


def one(call: Call, name: str) -> str:
    """A query parameter that may be given once."""
    return next(iter(call.query.get(name, ())), "")


def page(call: Call, key: str, items: Sequence[Wire], per_page_max: int = PER_PAGE_MAX) -> Answer:
    """Filter by name, label selector and status, sort, and cut the page that was asked for."""
    kept = _sorted(call, _filtered(call, items))
    number, size = _number(call, "page", 1), _number(call, "per_page", PER_PAGE_DEFAULT)
    if size > per_page_max:
        raise errors.invalid("per_page", f"must be at most {per_page_max}")
    last = max(1, -(-len(kept) // size))
    pages = {"prev": number - 1 if number > 1 else None, "next": number + 1 if number < last else None, "last": last}
    pagination = {
        "page": number,
        "per_page": size,
        "previous_page": pages["prev"],
        "next_page": pages["next"],
        "last_page": last,
        "total_entries": len(kept),
    }
    cut = kept[(number - 1) * size : number * size]
    body = {key: cut, "meta": {"pagination": pagination}}
    return Answer(200, body, {rel: to for rel, to in pages.items() if to is not None})


def _number(call: Call, name: str, default: int) -> int:
    text = one(call, name) or str(default)
    if not text.isdecimal() or int(text) < 1:
        raise errors.invalid(name, "must be a positive number")
    return int(text)


def _filtered(call: Call, items: Sequence[Wire]) -> list[Wire]:
    kept = list(items)
    for name in ("name", "ip", "mode", "architecture"):
        if wanted := one(call, name):
            kept = [item for item in kept if item.get(name) == wanted]
    for name in ("status", "type"):
        if several := call.query.get(name):
            kept = [item for item in kept if item.get(name) in several]
    if numbers := call.query.get("id"):
        kept = [item for item in kept if str(item["id"]) in numbers]
    if text := one(call, "label_selector"):
        try:
            test = selector(text)
        except ValueError as error:
            raise errors.invalid("label_selector", str(error)) from None
        kept = [item for item in kept if test(item["labels"])]
    return kept


def _sorted(call: Call, items: list[Wire]) -> list[Wire]:
    for order in reversed(call.query.get("sort", ())):
        name, _, direction = order.partition(":")
        if direction not in ("", "asc", "desc") or any(name not in item for item in items):
            raise errors.invalid("sort", f"cannot sort by {order!r}")
        items = sorted(items, key=lambda item: (item[name] is None, item[name]), reverse=direction == "desc")
    return items


def listed(cloud: Cloud, collection: Collection) -> list[Wire]:
    """What a list shows: all of it, or what the lie list-late lets it."""
    resources = collection.all(cloud).values()
    if not cloud.lies.tell(LieName.LIST_LATE, collection.plural):
        return [collection.wire(cloud, each) for each in resources]
    horizon = cloud.clock() - cloud.options.late_seconds
    old = [collection.wire(cloud, each) for each in resources if each.created <= horizon]
    return old + [wire for at, wire in cloud.gone[collection.plural] if at > horizon]


def lister(collection: Collection) -> Handler:
    async def handler(call: Call) -> Answer:
        return page(call, collection.plural, listed(call.cloud, collection))

    return handler


def getter(collection: Collection) -> Handler:
    async def handler(call: Call) -> Answer:
        return Answer(200, {collection.singular: collection.wire(call.cloud, find(call, collection))})

    return handler


def updater(collection: Collection) -> Handler:
    """Name and labels; the labels given replace those there are."""

    async def handler(call: Call) -> Answer:
        found = find(call, collection)
        if "name" in call.body:
            found.name = unused_name(call, collection, take_name(call.body), but=found.id)
        if "labels" in call.body:
            found.labels = take_labels(call.body)
        return Answer(200, {collection.singular: collection.wire(call.cloud, found)})

    return handler


def basic_routes(collection: Collection) -> list[ApiRoute]:
    path = f"/{collection.plural}"
    return [
        ("GET", path, lister(collection)),
        ("GET", f"{path}/{{id}}", getter(collection)),
        ("PUT", f"{path}/{{id}}", updater(collection)),
    ]


def acted(cloud: Cloud, action: Action) -> Answer:
    """What is answered where an action has begun."""
    return Answer(201, {"action": action_wire(cloud, action)})


def protection(collection: Collection) -> ApiRoute:
    """Against being deleted."""

    async def handler(call: Call) -> Answer:
        found = find(call, collection)
        if "delete" in call.body:
            found.delete_protected = take(call.body, "delete", bool)
        return acted(call.cloud, begin(call.cloud, "change_protection", [(collection.singular, found.id)]))

    return "POST", f"/{collection.plural}/{{id}}/actions/change_protection", handler
