"""Hold requests and answers against an OpenAPI 3.0 description: the keywords that the vendor's uses, no more."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

Schema = Mapping[str, Any]
_TYPES: dict[str, Any] = {"string": str, "boolean": bool, "array": list, "object": dict, "integer": int}
_KNOWN = {
    *("type", "nullable", "allOf", "oneOf", "enum", "pattern", "format", "minimum", "maximum", "minLength"),
    *("maxLength", "minItems", "maxItems", "properties", "required", "additionalProperties", "items"),
    *("description", "title", "example", "examples", "default", "deprecated", "externalDocs", "x-enum-varnames"),
}


def specs() -> Path:
    """TINYFAT_SPECS, or where they lie beside the project. Hetzner's, one file: openapi/hcloud.json of
    github.com/MaximilianKoestler/hcloud-openapi (MIT)."""
    beside = Path(__file__).resolve().parents[3] / "shared" / "specs"
    return Path(os.environ.get("TINYFAT_SPECS") or beside)


@cache
def specification(name: str) -> Specification | None:
    """None where it is not on this machine."""
    file = specs() / name
    return Specification(json.loads(file.read_text())) if file.is_file() else None


@dataclass(frozen=True)
class Operation:
    method: str
    path: str  # with its parameters' names
    body: Mapping[str, Any]


class Specification:
    def __init__(self, body: Mapping[str, Any]) -> None:
        self._schemas = body["components"]["schemas"]
        self.operations = [
            Operation(method.upper(), path, operation)
            for path, methods in body["paths"].items()
            for method, operation in methods.items()
            if method in ("get", "post", "put", "delete")
        ]

    def find(self, method: str, path: str) -> Operation:
        """The one with the fewest parameters that fits."""
        fitting = [one for one in self.operations if one.method == method and _fits(one.path, path)]
        assert fitting, f"{method} {path} is not in the specification"
        return min(fitting, key=lambda one: one.path.count("{"))

    def faults(self, method: str, path: str, sent: Any, status: int, answered: Any) -> list[str]:
        """What is wrong with an exchange. A request that was refused may be as wrong as it likes."""
        operation = self.find(method, path)
        name = str(status) if status < 400 else f"{status // 100}xx"
        if name not in operation.body["responses"]:
            return [f"status {status} is not in the specification"]
        faults = []
        content = operation.body["responses"][name].get("content")
        if content is not None:
            faults += self._faults(content["application/json"]["schema"], answered, "answer")
        elif answered is not None:
            faults.append("the answer has a body and must have none")
        wanted = operation.body.get("requestBody")
        if wanted is not None and status < 400:
            faults += self._faults(wanted["content"]["application/json"]["schema"], sent, "request")
        return [f"{method} {path}: {fault}" for fault in faults]

    def _faults(self, schema: Schema, value: Any, where: str) -> Iterator[str]:
        if "$ref" in schema:
            schema = self._schemas[schema["$ref"].rpartition("/")[2]]
        assert set(schema) <= _KNOWN, f"keywords that this checker does not know: {set(schema) - _KNOWN}"
        if value is None and schema.get("nullable"):
            return
        for part in schema.get("allOf", ()):
            yield from self._faults(part, value, where)
        if "oneOf" in schema and sum(not list(self._faults(part, value, where)) for part in schema["oneOf"]) != 1:
            yield f"{where} fits not just one of oneOf"
        kind = schema.get("type")
        if kind is not None and not _is_of(kind, value):
            yield f"{where} is {value!r}, no {kind}"
            return
        if "enum" in schema and value not in schema["enum"]:
            yield f"{where} is {value!r}, none of {schema['enum']}"
        yield from _bounds(schema, value, where)
        if isinstance(value, dict):
            yield from self._object(schema, value, where)
        for number, item in enumerate(value if isinstance(value, list) else ()):
            yield from self._faults(schema.get("items", {}), item, f"{where}[{number}]")

    def _object(self, schema: Schema, value: dict[str, Any], where: str) -> Iterator[str]:
        known = schema.get("properties", {})
        yield from (f"{where}.{name} is missing" for name in schema.get("required", ()) if name not in value)
        for name, item in value.items():
            part = known.get(name, schema.get("additionalProperties"))
            if isinstance(part, dict):
                yield from self._faults(part, item, f"{where}.{name}")


def _fits(template: str, path: str) -> bool:
    return re.fullmatch(re.sub(r"\{[^}]+\}", "[^/]+", template), path) is not None


def _is_of(kind: str, value: Any) -> bool:
    if kind == "number":
        return isinstance(value, int | float) and not isinstance(value, bool)
    return isinstance(value, _TYPES[kind]) and not (kind == "integer" and isinstance(value, bool))


def _bounds(schema: Schema, value: Any, where: str) -> Iterator[str]:
    size = value if isinstance(value, int | float) else None
    length = len(value) if isinstance(value, str | list) else None
    for low, high, measured in (
        ("minimum", "maximum", size),
        ("minLength", "maxLength", length if isinstance(value, str) else None),
        ("minItems", "maxItems", length if isinstance(value, list) else None),
    ):
        if measured is not None and not schema.get(low, measured) <= measured <= schema.get(high, measured):
            yield f"{where} is out of bounds: {value!r}"
    if isinstance(value, str) and "pattern" in schema and not re.search(schema["pattern"], value):
        yield f"{where} is {value!r}, not as {schema['pattern']}"
    if isinstance(value, str) and schema.get("format") == "date-time" and datetime.fromisoformat(value).tzinfo is None:
        yield f"{where} is {value!r}, without a time zone"
    if isinstance(value, str) and schema.get("format") == "decimal" and not re.fullmatch(r"-?\d+(\.\d+)?", value):
        yield f"{where} is {value!r}, no decimal"
