"""What conversations really weighed, by what their vendors said: a bound of their next calls that is near the truth.

The vendor's count of a request bounds whatever begins with the same messages: what comes behind them is at most its
bytes. So the memory is asked for the longest beginning it knows. It is kept for each agent, model and set of headers;
it is lost with the process, and then the bytes alone count, once a conversation.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TypeAlias

from tinyfat.ports.inference import Target
from tinyfat.relay.request import ModelRequest
from tinyfat.relay.shapes.weight import Weight
from tinyfat.relay.vendors import Asked

KNOWN_MAX = 20_000  # beginnings, some 300 bytes each

_Key: TypeAlias = tuple[bytes, str, str, bytes, bytes]


class KnownInputs:
    def __init__(self, most: int = KNOWN_MAX) -> None:
        self._most = most
        self._known: OrderedDict[_Key, int] = OrderedDict()  # tokens of all up to a mark, at most

    def learn(self, asked: Asked, request: ModelRequest, vendor: str, model: str, tokens: int) -> None:
        """`tokens`: of the whole input, as the vendor counted it. What it fetches anew with each call teaches nothing.

        Both the whole and what stood before the conversation are bounded by it. What is between is not: models leave
        out what they thought before the last question, so of two requests the longer may weigh less.
        """
        if request.weight.moving or not request.marks or tokens <= 0:
            return
        whole, before = request.marks[0], request.marks[-1]
        self._keep(_key(asked, vendor, model, before.digest), tokens, least=True)
        self._keep(_key(asked, vendor, model, whole.digest), tokens, least=False)

    def bound(self, asked: Asked, request: ModelRequest, target: Target) -> int | None:
        """Tokens, never fewer than it is; None where nothing is known of its beginning."""
        for mark in request.marks:
            key = _key(asked, target.vendor, target.model, mark.digest)
            known = self._known.get(key)
            if known is not None:
                self._known.move_to_end(key)
                behind = mark.behind
                return _behind(mark.size, behind).tokens(target, known)
        return None

    def _keep(self, key: _Key, tokens: int, least: bool) -> None:
        before = self._known.get(key)
        self._known[key] = tokens if before is None or not least else min(before, tokens)
        self._known.move_to_end(key)
        if len(self._known) > self._most:
            self._known.popitem(last=False)


def _behind(size: int, weight: Weight) -> Weight:
    return Weight(size, weight.images, weight.image_bytes, weight.unbounded)


def _key(asked: Asked, vendor: str, model: str, digest: bytes) -> _Key:
    return asked.key_hash, vendor, model, asked.passed_digest, digest
