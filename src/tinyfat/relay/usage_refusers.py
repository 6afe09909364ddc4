"""Vendors that refuse `stream_options`: their models are called without it, and what they stream is counted by us."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace

from tinyfat.ports.inference import Target
from tinyfat.relay.reply import Reply
from tinyfat.relay.request import ModelRequest

REMEMBERED_SECONDS = 24 * 3600.0  # then it is tried again: vendors learn
REMEMBERED_MAX = 1000
_OTHERWISE = (401, 402, 403, 429)  # of errors, what no field of a request is the reason of
_COMMA = re.compile(rb"\s*,")
_NAMES = (b"stream_options", b"include_usage")


class UsageRefusers:
    def __init__(self, clock: Callable[[], float]) -> None:
        """`clock`: monotonic seconds."""
        self._clock = clock
        self._until: OrderedDict[tuple[str, str, str], float] = OrderedDict()  # the first to be forgotten first

    def __contains__(self, target: Target) -> bool:
        until = self._until.get(_place(target))
        return until is not None and self._clock() < until

    @staticmethod
    def named_in(reply: Reply) -> bool:
        """Does this error speak of it? It may only repeat the request, so nothing is remembered yet."""
        if reply.status < 400 or reply.status in _OTHERWISE:
            return False
        said = reply.body + (reply.fault.words.encode(errors="replace") if reply.fault is not None else b"")
        return any(name in said for name in _NAMES)

    def remember(self, target: Target) -> None:
        """It answered without."""
        self._until[_place(target)] = self._clock() + REMEMBERED_SECONDS
        self._until.move_to_end(_place(target))
        if len(self._until) > REMEMBERED_MAX:
            self._until.popitem(last=False)


def without_stream_options(request: ModelRequest) -> ModelRequest:
    """Byte for byte else."""
    if "stream_options" not in request.spans:
        return request
    raw = request.raw
    start, end = request.spans["stream_options"]
    start = raw.rindex(b'"', 0, raw.rindex(b'"', 0, raw.rindex(b":", 0, start)))  # of its name
    comma = _COMMA.match(raw, end)
    if comma is not None:
        end = comma.end()
    else:  # it is the last, and `model` comes before it
        start = raw.rindex(b",", 0, start)
    spans = {name: _moved(span, start, end) for name, span in request.spans.items() if name != "stream_options"}
    return replace(request, raw=raw[:start] + raw[end:], spans=spans)


def _moved(span: tuple[int, int], start: int, end: int) -> tuple[int, int]:
    return span if span[1] <= start else (span[0] - (end - start), span[1] - (end - start))


def _place(target: Target) -> tuple[str, str, str]:
    return target.vendor, target.url, target.model
