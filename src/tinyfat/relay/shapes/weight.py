"""What of a request its bytes do not bound: a token of text is at least a byte, but an image of one colour is a few
hundred bytes and thousands of tokens, and what is named by an address is as long as the model's window allows.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from tinyfat.ports.inference import Target


@dataclass(frozen=True, slots=True)
class ImageRate:
    """What a model's vendor charges for images, in tokens of input."""

    most: int  # for one image
    each: int = 1  # for one token that images take of the model's window
    seen: bool = True  # it is known to take images as such


# OpenAI, "Images and vision" (Calculating costs): a patch is 32 x 32 pixels and at most 2.46 tokens; a tile is 512 x
# 512 of what was scaled into 2048 x 768, so there are 8 at most. An image of more patches than 30,000 is refused.
PATCHES_MAX = 30_000
_TILES_MAX = 8


def _patches(most: int) -> ImageRate:
    return ImageRate(most * 246 // 100 + 1)


_UNKNOWN_MODEL = replace(_patches(PATCHES_MAX), seen=False)  # nobody asks more
_RATES = [
    (re.compile(r"(?<![a-z0-9])(?:" + names + ")", re.IGNORECASE), rate)
    for names, rate in (
        # Its images are 33 1/3 times as dear as gpt-4o's, and are as large as those in its window.
        (r"gpt-4o-mini", ImageRate(2_833 + _TILES_MAX * 5_667, each=34)),
        # Tiles of at most 170 tokens, or scaled down to 1,536 patches.
        (r"gpt-(?:4o|4-turbo|4\.[15]|5|5\.[1-3]|5\.4-(?:mini|nano))(?![.0-9])", _patches(1_536)),
        (r"o(?:1|3|4-mini)(?![a-z0-9])", _patches(1_536)),
        (r"gpt-5\.[45](?![0-9])", _patches(10_000)),  # with detail "original"
        # Anthropic, "Vision": the models of high resolution scale an image down to 4,784 tokens.
        (r"claude", ImageRate(5_000)),
        (
            r"minimax-m2(?:p|\.)1(?![0-9])",
            ImageRate(0, seen=False),
        ),  # reads text alone: an image is refused, or is its bytes
    )
]


@lru_cache(maxsize=100)
def image_rate(model: str) -> ImageRate:
    """By the vendor's id of the model. Of one that is not in the table the most that any vendor charges: too much is
    held for a moment, too little would let a call pass a cap."""
    return next((rate for names, rate in _RATES if names.search(model)), _UNKNOWN_MODEL)


@dataclass(frozen=True, slots=True)
class Weight:
    """Of a part of a request, or of all of it."""

    size: int = 0  # bytes, as it was sent
    images: int = 0  # in the request itself
    image_bytes: int = 0  # of `size`: what those images are written in
    unbounded: bool = False  # kept or fetched by the vendor, or a document: its pages may be empty, and many
    moving: bool = False  # it is fetched anew, or may be another thing by the next call
    hour: bool = False  # the vendor's cache is asked to keep some of it for an hour, which is dearer
    stored: str = ""  # what of it lies at the vendor, by an id: the account's, which is not always the agent's

    def __add__(self, other: Weight) -> Weight:
        if other is NOTHING:
            return self
        return Weight(
            self.size + other.size,
            self.images + other.images,
            self.image_bytes + other.image_bytes,
            self.unbounded or other.unbounded,
            self.moving or other.moving,
            self.hour or other.hour,
            self.stored or other.stored,
        )

    def of_size(self, size: int) -> Weight:
        return Weight(size, self.images, self.image_bytes, self.unbounded, self.moving, self.hour, self.stored)

    def tokens(self, target: Target, more: int = 0) -> int:
        """The most it can be. `more`: what the vendor adds by itself, or what is known of the rest."""
        if not self.images and not self.unbounded:
            return _within(self.size + more, target)
        rate = image_rate(target.model)
        window = target.window * rate.each
        if self.unbounded:
            return window
        # A model that takes images does not read the letters they are written in; of one we do not know, who can tell?
        letters = self.size - self.image_bytes if rate.seen else self.size
        return min(letters + self.images * rate.most + more, window)


def _within(tokens: int, target: Target) -> int:
    """A window that we only assume is no bound of what is there to be read."""
    return tokens if target.input_max is None else min(tokens, target.input_max)


_NO_IMAGES = ("application/", "audio/", "font/", "message/", "model/", "multipart/", "text/", "video/")
NOTHING = Weight()
UNBOUNDED = Weight(unbounded=True)  # a document
FETCHED = Weight(unbounded=True, moving=True)


def total(weights: Iterable[Weight]) -> Weight:
    """The sum; most of them are NOTHING."""
    found = NOTHING
    for weight in weights:
        if weight is not NOTHING:
            found += weight
    return found


def stored(what: str) -> Weight:
    return Weight(unbounded=True, moving=True, stored=what)


def of_address(url: object) -> Weight:
    """Of an image: `data:` holds it, anything else names it."""
    if not isinstance(url, str) or url[:5].lower() != "data:":
        return FETCHED
    if url[5:40].lower().startswith(_NO_IMAGES):
        return UNBOUNDED
    return Weight(images=1, image_bytes=len(url) if url[5:11].lower() == "image/" else 0)


def pieces(content: object, *within: str) -> Iterator[Mapping[str, Any]]:
    """The objects of a list, and what they hold under these names, however deep."""
    waiting: list[object] = [content]
    while waiting:
        value = waiting.pop()
        if isinstance(value, list):
            waiting += value
        elif isinstance(value, Mapping):
            yield value
            waiting += [inner for name in within if isinstance(inner := value.get(name), (list, Mapping))]


@dataclass(frozen=True, slots=True)
class Reading:
    """Of a request's fields and of its messages: what they weigh, and what they ask for."""

    rest: Weight  # all but the messages
    items: tuple[Weight, ...] = ()  # of each message
    added: int = 0  # tokens that the vendor adds by itself
    outputs: tuple[tuple[str, int], ...] = ()  # the request's own bounds on its output, by their names
    choices: int = 1  # 0: it puts out nothing
    predicted: bool = False
    thinking: int = 0  # tokens of the output that are for thinking: fewer than its bound
