"""Server-sent events on their way through (WHATWG HTML, 9.2): whole events go on, byte for byte, as soon as they end.

What a surface watches for is found in whole events only, so it makes no difference where the network cut the bytes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any

from tinyfat.domain.usage import Usage
from tinyfat.relay.json_body import light
from tinyfat.relay.shapes.faults import Fault, fault_in, fault_of
from tinyfat.relay.shapes.long_event import LongEvent, gist
from tinyfat.relay.shapes.reported import Count, best, read_json
from tinyfat.relay.shapes.tally import Tally
from tinyfat.relay.shapes.unread import usages_in

EVENT_BYTES_MAX = 1024 * 1024  # an event longer than this goes on as it comes (long_event)
LAST_PIECES_MAX = 64  # of what comes after the end; more is not sent
LEAD_BYTES = 32  # of what is watched for, before its mark
UNCOUNTED_BYTES_MAX = 64 * 1024  # kept so as to count what was produced, should the vendor not say

HEAVY_BYTES_MIN = 64 * 1024  # fewer bytes than this are read in no time, whatever they are
LATELY = 4  # pieces of an answer
_BLANK_LINE = re.compile(rb"\r\n\r\n|\n\n|\r\r")
_BLANKS = (b"\n\n", b"\r\n\r\n", b"\r\r")
_DATA = re.compile(rb"^(?:\xef\xbb\xbf)?data:[ ]?([^\r\n]*)", re.MULTILINE)
_ERROR_EVENT = re.compile(rb"^event:[ ]?error[ ]*\r?$", re.MULTILINE)

USAGES = rb'"usage(?:_metadata|Metadata)?"\s*:\s*[{\[]'  # part of `watched`, as is
ERRORS = rb'"error"\s*:\s*[{"]|"type"\s*:\s*"error"|"object"\s*:\s*"error"|^event:[ ]?error'


class Fate(Enum):
    PASS = "pass"  # noqa: S105 - no password
    STRIP = "strip"
    LAST = "last"  # this event and all after it wait until the call is settled


class StreamReader:
    """Of one answer. A surface's own kind says which events matter (`watched`) and what of them (`look`).

    `marks`: whatever `watched` finds holds one of them, near its beginning. To look for these few bytes costs a
    hundredth, and most pieces of an answer hold none.
    """

    watched: re.Pattern[bytes]
    marks: tuple[bytes, ...]
    cache_beside = False  # as in `counts`

    def __init__(self) -> None:
        self.finished = False  # the vendor said so: it was not cut
        self.final = False  # the usage that it has told is all there will be
        self.fault: Fault | None = None  # the vendor said that it failed
        self.telling: Callable[[bytes, Mapping[str, Any]], bytes] | None = None  # of an event that is an error
        self._failed: Mapping[str, Any] | None = None  # the event at hand, where it is an error; {}: not read whole
        self._tally = Tally(self._said_more)
        self._event: Mapping[str, Any] = {}  # the one at hand
        self._told = False  # by the event at hand: how much was produced until now
        self._rest: list[bytes] = []  # of an event that has not ended
        self._rest_bytes = 0
        self._long: LongEvent | None = None
        self._last: list[bytes] = []
        self._uncounted: list[bytes] = []
        self._uncounted_bytes = 0
        self._covered = 0  # so many of them came before the last usage
        self._counted_bytes = 0
        self._text_bytes = 0
        self._text_bytes_since = 0
        self._long_bytes = 0  # of events that nobody read: perhaps it was text
        self._silent = 0  # so many of `_uncounted` are known to hold no text

    def look(self, event: Mapping[str, Any], kind: bytes) -> Fate:
        """`kind`: "[DONE]" for that line, else empty."""
        raise NotImplementedError

    def text_of(self, event: Mapping[str, Any]) -> int:
        """Bytes of text the model produced with this event."""
        raise NotImplementedError

    def feed(self, piece: bytes) -> bytes:
        """What may leave now."""
        if self._last:
            if len(self._last) < LAST_PIECES_MAX:
                self._last.append(piece)
            return b""
        if self._long is not None:
            return self._feed_long(self._long, piece)
        data = b"".join([*self._rest, piece]) if self._rest else piece
        end = _end_of_events(data, self._rest_bytes)
        self._rest = [data[end:]] if end < len(data) else []
        self._rest_bytes = len(data) - end
        if self._rest_bytes > EVENT_BYTES_MAX:
            begun, self._rest, self._rest_bytes = data[end:], [], 0
            self._long = LongEvent()
            return (self._through(data[:end]) if end else b"") + self._feed_long(self._long, begun)
        whole = data if end == len(data) else data[:end]
        return self._through(whole) if whole else b""

    def end(self) -> bytes:
        """What waited: to be sent when the call is settled."""
        if self._long is not None:
            rest = self._long.end()
            self._passed_unread(rest)
            waited, self._long = self._ended(self._long, rest), None
            return waited + b"".join(self._last)
        waited = b"".join([*self._last, *self._rest])
        if self._rest and not self._last and (first := self._first(waited)) >= 0:
            waited = self._watch(waited, first) + b"".join(self._last)  # the last event without its blank line
        elif self._last:
            end, *after = split(waited)
            judged = [self._judged(event) for event in after]
            waited = end + b"".join([event for fate, event in judged if fate is not Fate.STRIP])
        self._rest, self._last = [], []
        self._cover()
        return waited

    @property
    def usage(self) -> Usage | None:
        """The largest reading of what the vendor has said; None while it has not said all."""
        return best(self.counts)

    @property
    def input_counted(self) -> Usage | None:
        """As `usage`, also where what it says of the output will grow."""
        return best(self.counts)

    @property
    def counts(self) -> list[Count]:
        """The readings of what it has said."""
        return self._tally.readings

    @property
    def told(self) -> bool:
        """Has it said anything of its usage? As `counts`, without reckoning them."""
        return self._tally.told

    @property
    def speaks(self) -> bool:
        """Has the model produced anything? It is looked for up to the first of it, and in no event twice."""
        while not (self._text_bytes or self._long_bytes) and self._silent < len(self._uncounted):
            if any(self._text_of(event) for event in split(self._uncounted[self._silent])):
                return True
            self._silent += 1
        return bool(self._text_bytes or self._long_bytes)

    @property
    def text_bytes(self) -> int:
        """Of what the model has produced so far."""
        self._count()
        return self._text_bytes + (0 if self.counts else self._long_bytes)

    @property
    def text_bytes_since(self) -> int:
        """Of it, what came after the last usage that said how much there was. Where the vendor has said that this is
        all (as nearly all do with the last event but one), what it sent is not looked through for it."""
        if self._covered == len(self._uncounted) and not self._text_bytes_since:
            return 0
        self._count()
        return self._text_bytes_since

    @property
    def passed_bytes(self) -> int:
        """Of all the events so far: the text is less."""
        return self._counted_bytes + self._uncounted_bytes

    def tell(self, place: str, usage: object, cache_beside: bool = False) -> None:
        """To be called by `look` with what the event at hand says of the usage."""
        if self._tally.add(place, usage, cache_beside):
            self._told = True

    @property
    def broken_bytes(self) -> int:
        """Of an event that has not ended: the text in it is less."""
        return self._rest_bytes

    def lately(self, sign: re.Pattern[bytes]) -> bool:
        """Is it in what passed of late?"""
        return any(sign.search(events) for events in self._uncounted[-LATELY:])

    def _said_more(self) -> bool:
        return self.text_of(self._event) > 0 or self.text_bytes_since > 0

    def _through(self, whole: bytes) -> bytes:
        """Of events that have ended, what may leave."""
        first = self._first(whole)
        return self._pass(whole) if first < 0 else self._watch(whole, first)

    def _feed_long(self, event: LongEvent, piece: bytes) -> bytes:
        left, behind = event.feed(piece)
        self._passed_unread(left)
        if behind is None:
            return left
        self._long = None
        return self._ended(event, left) + (self.feed(behind) if behind else b"")

    def _passed_unread(self, part: bytes) -> None:
        self._long_bytes += len(part)
        self._text_bytes_since += len(part)
        self._counted_bytes += len(part)

    def _ended(self, event: LongEvent, rest: bytes) -> bytes:
        """What of its rest may leave."""
        for usage in event.usages:
            self.tell("usage", usage, self.cache_beside)
        fate = self.look(event.gist, b"")
        self._cover()
        if fate is Fate.LAST:
            self._last.append(rest)
            return b""
        return rest

    def _pass(self, events: bytes) -> bytes:
        self._uncounted.append(events)
        self._uncounted_bytes += len(events)
        if self._uncounted_bytes > UNCOUNTED_BYTES_MAX:
            self._count()
        return events

    def _first(self, events: bytes) -> int:
        """Where the first of what is watched for begins; -1 where there is none."""
        places = [place for mark in self.marks if (place := events.find(mark)) >= 0]
        found = self.watched.search(events, max(0, min(places) - LEAD_BYTES)) if places else None
        return -1 if found is None else found.start()

    def _watch(self, events: bytes, first: int) -> bytes:
        out: list[bytes] = []
        if before := _end_of_events(events[:first], 0):
            out.append(self._pass(events[:before]))
        for event in split(events[before:]):
            if self._last:
                self._last.append(event)
                continue
            fate, told = self._judged(event)
            if fate is Fate.LAST:
                self._last.append(told)
            elif fate is Fate.PASS:
                out.append(self._pass(told))
            self._cover()
        return b"".join(out)

    def _cover(self) -> None:
        if self._told:
            self._told = False
            self._covered, self._text_bytes_since = len(self._uncounted), 0

    def _judged(self, event: bytes) -> tuple[Fate, bytes]:
        """And what of it is for the client."""
        fate = self._read(event)
        failed, self._failed = self._failed, None
        return fate, event if failed is None or self.telling is None else self.telling(event, failed)

    def _read(self, event: bytes) -> Fate:
        if self._first(event) < 0:
            return Fate.PASS
        data = data_of(event)
        if data == b"[DONE]":
            return self.look({}, data)
        heavy = _heavy(data)
        body = gist(data) if heavy else read_json(data)
        self._event = body if isinstance(body, dict) else {}
        if body is None or heavy:
            for usage in usages_in(data):
                self.tell("usage", usage, self.cache_beside)
        fault = fault_in(self._event)
        if fault is None and _ERROR_EVENT.search(event):
            fault = fault_of(self._event or {"message": data.decode(errors="replace")})
        self.fault = self.fault or fault
        if fault is not None:
            self._failed = {} if heavy else self._event
        if fault is not None and isinstance(error := self._event.get("error"), Mapping):
            self.tell("error", error.get("usage"))
        return self.look(self._event, b"") if self._event else Fate.PASS

    def _count(self) -> None:
        for number, events in enumerate(self._uncounted):
            text = sum(self._text_of(event) for event in split(events))
            self._text_bytes += text
            if number >= self._covered:
                self._text_bytes_since += text
        self._counted_bytes += self._uncounted_bytes
        self._uncounted, self._uncounted_bytes, self._covered, self._silent = [], 0, 0, 0

    def _text_of(self, event: bytes) -> int:
        data = data_of(event)
        body = None if _heavy(data) else _object(data)
        if body is not None:
            return self.text_of(body)
        return len(data) if data != b"[DONE]" and event.endswith(_BLANKS) else 0  # who can tell?


def split(events: bytes) -> list[bytes]:
    """Each with its blank line; together they are `events` again."""
    if b"\r" not in events:
        *whole, rest = events.split(b"\n\n")
        return [event + b"\n\n" for event in whole] + ([rest] if rest else [])
    found: list[bytes] = []
    at = 0
    for blank in _BLANK_LINE.finditer(events):
        found.append(events[at : blank.end()])
        at = blank.end()
    return [*found, events[at:]] if at < len(events) else found


def data_of(event: bytes) -> bytes:
    if event.startswith(b"data: ") and event.endswith(b"\n\n") and event.find(b"\n", 0, -2) < 0 and b"\r" not in event:
        return event[6:-2]  # as nearly all events are
    return b"\n".join(_DATA.findall(event))


def event(body: Mapping[str, Any], kind: str = "") -> bytes:
    head = f"event: {kind}\n" if kind else ""
    return f"{head}data: {json.dumps(body, ensure_ascii=False)}\n\n".encode()


def _end_of_events(data: bytes, seen: int) -> int:
    """Where the last whole event ends; 0 where none has. The first `seen` bytes are known to hold no end."""
    if data.endswith(b"\n\n"):
        return len(data)
    since = max(0, seen - 3)
    end = data.rfind(b"\n\n", since) + 2
    if data.find(b"\r", since) < 0:
        return end if end >= 2 else 0
    ends = (end, data.rfind(b"\r\n\r\n", since) + 4, data.rfind(b"\r\r", since) + 2)
    found = [end for end, width in zip(ends, (2, 4, 2), strict=True) if end >= width]
    return max(found, default=0)


def _heavy(data: bytes) -> bool:
    """Is it too much to be read on the loop? Some events repeat the whole of a request, or of an answer."""
    return len(data) > HEAVY_BYTES_MIN and not light(data)


def _object(data: bytes) -> Mapping[str, Any] | None:
    try:
        body = json.loads(data)
    except (ValueError, RecursionError):
        return None
    return body if isinstance(body, dict) else None
