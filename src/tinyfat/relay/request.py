"""A request's body: read whole, judged, and changed in the bytes of a few fields alone. Pure.

What we judge must be what the vendor reads: `json_body` refuses what readers take differently, the shapes what is not
written down as allowed. `read_body` is a function of bytes that gives back little, so that another process may do it.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from tinyfat.ports.inference import Api, Target
from tinyfat.relay.json_body import Body, RequestRefused, read_object
from tinyfat.relay.shapes.surface import Bound, Surface
from tinyfat.relay.shapes.surfaces import SURFACES
from tinyfat.relay.shapes.weight import NOTHING, Reading, Weight, total

MODEL_CHARS_MAX = 200
MARKS_MAX = 128  # of a conversation: the last so many places where an earlier call may have ended
DIGEST_BYTES = 16
THINKING_BYTES_MAX = 1000
THINKING_LEAVES = 1024  # of an answer's tokens, for what is said after the thinking
_ASK_USAGE = b'"stream_options":{"include_usage":true},'

# Where a client wants the vendor's cache to begin: another place with each call, and nothing that the model reads.
_CACHE_MARK = re.compile(rb',\s?"cache_control":\s?\{"type":\s?"ephemeral"(?:,\s?"ttl":\s?"(?:5m|1h)")?\}')


@dataclass(frozen=True, slots=True)
class Mark:
    """A place in the request where an earlier call of the conversation may have ended."""

    digest: bytes  # of all up to it
    size: int  # bytes behind it
    behind: Weight  # what else is there


@dataclass(frozen=True, slots=True)
class ModelRequest:
    raw: bytes = field(repr=False)
    surface: str
    model: str
    streamed: bool
    options: Mapping[str, Any]  # stream_options
    spans: Mapping[str, tuple[int, int]]  # where each field's value is in `raw`
    reading: Reading
    weight: Weight  # of all of it
    caches: bool  # it may ask a vendor's cache to keep some of it
    thinking: Mapping[str, Any]
    marks: tuple[Mark, ...]  # the last first; none where the vendor may leave out what it likes

    @property
    def stored(self) -> str:
        """What of it lies at the vendor, under an id of the account's; empty where nothing does."""
        return self.weight.stored


def read_request(raw: bytes, surface: Surface) -> ModelRequest:
    """Raises RequestRefused, with words for the client."""
    return _read(raw, surface, raw)


def read_body(surface_name: str, raw: bytes) -> ModelRequest:
    """`read_request` without the bytes in what it returns: a few hundred small objects. Raises RequestRefused."""
    return _read(raw, SURFACES[surface_name], b"")


def _read(raw: bytes, surface: Surface, kept: bytes) -> ModelRequest:
    body = read_object(raw, surface.listed)
    fields = body.fields
    model = fields.get("model")
    if not isinstance(model, str) or not 0 < len(model) <= MODEL_CHARS_MAX:
        raise RequestRefused(f"model must be a text of 1 to {MODEL_CHARS_MAX} characters")
    reading = surface.read(fields)
    start, end = body.spans.get("thinking", (0, 0))
    if reading.thinking and end - start > THINKING_BYTES_MAX:
        raise RequestRefused(f"thinking must be at most {THINKING_BYTES_MAX} bytes")
    return ModelRequest(
        kept,
        surface.name,
        model,
        bool(fields.get("stream")),
        fields.get("stream_options") or {},
        body.spans,
        replace(reading, items=()),  # they are in the marks
        total((reading.rest, *reading.items)).of_size(len(raw)),
        b"cache_control" in raw or b"\\u" in raw,  # a name may be written with escapes
        fields["thinking"] if reading.thinking else {},
        () if fields.get("truncation") not in (None, "disabled") else _marks(surface, raw, body, reading),
    )


def bound(request: ModelRequest, target: Target, known: int | None = None, lowered: int | None = None) -> Bound:
    """The most it can cost at this target. `known`: tokens of input, where somebody knows better than its bytes say;
    `lowered`: of output, in place of the request's own bound."""
    reading, weight = request.reading, request.weight
    taken = weight.tokens(target, reading.added)
    if known is not None:
        taken = min(taken, known)
    each = max((most for _, most in reading.outputs), default=target.output_max) if lowered is None else lowered
    # What was predicted and not said is paid as output, beside max_tokens (OpenAI, "Predicted outputs").
    predicted = weight.size if reading.predicted else 0
    # Anthropic's cache is written to where a request asks for it, and nowhere else ("Prompt caching").
    written = request.caches or target.api is not Api.ANTHROPIC
    return Bound(taken, (each + predicted) * reading.choices, weight.hour, written, lowered or 0)


def upstream_body(
    request: ModelRequest, model: str, ask_usage: bool, lowered: int = 0, output_field: str = ""
) -> bytes:
    """With the vendor's name of the model; `ask_usage`: and with stream_options.include_usage; `lowered`: and with so
    many tokens as the bound of its output, where it names none as `output_field`. Else byte for byte."""
    changes = [(*request.spans["model"], _json(model))]
    if ask_usage:
        changes.append(_asking_usage(request))
    if lowered:
        changes += _lowering(request, lowered, output_field)
    pieces: list[bytes] = []
    at = 0
    for start, end, value in sorted(changes):
        pieces += (request.raw[at:start], value)
        at = end
    return b"".join((*pieces, request.raw[at:]))


def wants_usage(request: ModelRequest) -> bool:
    return request.options.get("include_usage") is True


def only_fields(request: ModelRequest, model: str, names: tuple[str, ...]) -> bytes:
    """The request with these of its fields alone, each byte for byte, and the vendor's name of the model."""
    parts = [b'"model":' + _json(model)]
    for name in names:
        if name in request.spans:
            start, end = request.spans[name]
            parts.append(_json(name) + b":" + request.raw[start:end])
    return b"{" + b",".join(parts) + b"}"


def _asking_usage(request: ModelRequest) -> tuple[int, int, bytes]:
    if "stream_options" in request.spans:
        return (*request.spans["stream_options"], _json({**request.options, "include_usage": True}))
    after = request.raw.index(b"{") + 1
    return after, after, _ASK_USAGE


def _lowering(request: ModelRequest, lowered: int, output_field: str) -> list[tuple[int, int, bytes]]:
    named = request.reading.outputs
    changes = [(*request.spans[name], _json(min(most, lowered))) for name, most in named]
    if not named and output_field in request.spans:  # as null
        changes.append((*request.spans[output_field], _json(lowered)))
    elif not named:
        after = request.raw.index(b"{") + 1
        changes.append((after, after, _json(output_field) + b":" + _json(lowered) + b","))
    if request.reading.thinking:
        budget = min(request.reading.thinking, lowered - THINKING_LEAVES)
        changes.append((*request.spans["thinking"], _json({**request.thinking, "budget_tokens": budget})))
    return changes


def _marks(surface: Surface, raw: bytes, body: Body, reading: Reading) -> tuple[Mark, ...]:
    """Both where nothing of the conversation was said yet and behind each of its last messages."""
    hashed = hashlib.blake2b(surface.name.encode(), digest_size=DIGEST_BYTES)
    for name in sorted(body.spans.keys() - surface.passing):
        start, end = body.spans[name]
        if name != surface.listed or not body.items:
            hashed.update(b"%s %d " % (name.encode(), end - start) + raw[start:end])
    sizes: list[int] = []
    removed = 0
    digests = [hashed.digest()]
    first = len(body.items) - MARKS_MAX
    for place, (item, written) in enumerate(zip(body.fields.get(surface.listed) or (), body.items, strict=False)):
        plain = _plain(item)
        if plain is None:
            plain = _CACHE_MARK.sub(b"", written) if b'"cache_control"' in written else written
            removed += len(written) - len(plain)
        hashed.update(b"%d " % len(plain) + plain)
        sizes.append(len(written) + 1)
        if place >= first:
            digests.append(hashed.digest())
    return tuple(_behind(digests, sizes, reading.items, removed))


def _behind(digests: list[bytes], sizes: list[int], items: tuple[Weight, ...], removed: int) -> Iterator[Mark]:
    """From the last to the first. What was taken out of the digests counts as if it came behind each of them."""
    size, behind = removed, NOTHING
    place = len(sizes)
    for digest in reversed(digests[1:]):
        yield Mark(digest, size, behind)
        place -= 1
        size += sizes[place]
        behind = behind + items[place]
    yield Mark(digests[0], size + sum(sizes[:place]), total((behind, *items[:place])))


def _plain(item: Any) -> bytes | None:
    """Of a message of nothing but one text: its role and the text. A client writes it as a text, or as a list with a
    mark for the cache in it, as its place in the conversation is."""
    if not isinstance(item, dict) or item.keys() != {"role", "content"} or not isinstance(item["role"], str):
        return None
    said = item["content"]
    if isinstance(said, list) and len(said) == 1 and isinstance(said[0], dict):
        part = said[0]
        said = (
            part.get("text")
            if part.get("type") == "text" and part.keys() <= {"type", "text", "cache_control"}
            else None
        )
    return f"text {item['role']} {said}".encode(errors="surrogatepass") if isinstance(said, str) else None


def _json(value: object) -> bytes:
    return json.dumps(value).encode()
