"""A vendor's answer that was not streamed: what it says of its usage, and whether it is an answer at all. Pure.

The loop waits for it: of what is much work to read, embeddings or images of many MB, the usage alone is looked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tinyfat.relay.json_body import light
from tinyfat.relay.shapes.faults import UNTOLD, Fault, fault_in
from tinyfat.relay.shapes.reported import Count, read_json
from tinyfat.relay.shapes.surface import Surface
from tinyfat.relay.shapes.unread import usages_in


@dataclass(frozen=True, slots=True)
class Said:
    counts: list[Count]  # the readings of its usage
    text_bytes: int  # of what the model produced, at most
    fault: Fault | None = None  # it says 200 and is none
    json: bool = False  # as far as was looked


def read_answer(surface: Surface, body: bytes, status: int, content_type: str) -> Said:
    """Of all of it."""
    if not light(body):
        return unread_answer(surface, body)
    answer = read_json(body)
    if not isinstance(answer, dict):
        said = unread_answer(surface, body)
        fault = _no_object(body, answer, content_type) if status < 400 and not said.counts else None
        return Said(said.counts, said.text_bytes, fault)
    found = [*surface.counts(answer), *_of_error(surface, answer)]
    return Said(found, surface.text_bytes(answer), None if status >= 400 else _fault(surface, answer, found), True)


def unread_answer(surface: Surface, body: bytes) -> Said:
    """Of one that is no JSON, or broke off, or is too much to read here."""
    found = [count for usage in usages_in(body) for count in surface.counts({"usage": usage})]
    produced = 0 if any(count.output for count in found) else len(body)  # it says how much there is, or anything may be
    return Said(found, produced, json=body[:1] == b"{" and body[-1:] == b"}")


def _of_error(surface: Surface, answer: Mapping[str, Any]) -> list[Count]:
    error = answer.get("error")
    return surface.counts(error) if isinstance(error, Mapping) else []


def _fault(surface: Surface, answer: Mapping[str, Any], found: list[Count]) -> Fault | None:
    if fault := fault_in(answer):
        return fault
    return None if found or surface.answers(answer) else Fault(UNTOLD, "it holds no answer")


def _no_object(body: bytes, answer: object, content_type: str) -> Fault | None:
    """What broke off may be billed; a web page, a line of a proxy's, a null are no answers."""
    if "html" in content_type.lower() or body.lstrip()[:1] == b"<":
        return Fault(UNTOLD, "it is a web page")
    if answer is not None or body.strip() == b"null":
        return Fault(UNTOLD, "it holds no answer")
    return None if body.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] == b"{" else Fault(UNTOLD, "it is no JSON")
