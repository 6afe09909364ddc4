"""What of a request its bytes do not bound: a token of text is at least a byte, but an image of one colour is a few
hundred bytes and thousands of tokens, and what is named by an address is as long as the model's window allows.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from tinyfat.ports.inference import Target


@dataclass(frozen=True, slots=True)
class ImageRate:
    """What a model's vendor charges for images, in tokens of input."""

    most: int  # for one image
    each: int = 1  # for one token that images take of the model's window


# OpenAI, "Images and vision" (Calculating costs): a patch is 32 x 32 pixels and at most 2.46 tokens; a tile is 512 x
# 512 of what was scaled into 2048 x 768, so there are 8 at most. An image of more patches than 30,000 is refused.
PATCHES_MAX = 30_000
_TILES_MAX = 8


def _patches(most: int) -> ImageRate:
    return ImageRate(most * 246 // 100 + 1)


_UNKNOWN_MODEL = _patches(PATCHES_MAX)  # nobody asks more
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
        (r"minimax-m2(?:p|\.)1(?![0-9])", ImageRate(0)),  # reads text alone: an image is refused, or is its bytes
    )
]


@lru_cache(maxsize=100)
def image_rate(model: str) -> ImageRate:
    """By the vendor's id of the model. Of one that is not in the table the most that any vendor charges: too much is
    held for a moment, too little would let a call pass a cap."""
    return next((rate for names, rate in _RATES if names.search(model)), _UNKNOWN_MODEL)


@dataclass(frozen=True, slots=True)
class Weight:
    images: int = 0  # in the request itself
    unbounded: bool = False  # kept or fetched by the vendor, or a document: its pages may be empty, and many

    def input_bound(self, size: int, target: Target, more: int = 0) -> int:
        """Tokens, of a request of `size` bytes. `more`: what the vendor adds by itself."""
        if not self.images and not self.unbounded:
            return min(size + more, target.input_max)
        rate = image_rate(target.model)
        window = target.input_max * rate.each
        return window if self.unbounded else min(size + self.images * rate.most + more, window)


UNBOUNDED = Weight(unbounded=True)


def added(weights: Iterable[Weight]) -> Weight:
    images = 0
    for weight in weights:
        if weight.unbounded:
            return UNBOUNDED
        images += weight.images
    return Weight(images)


def of_address(url: object) -> Weight:
    """Of an image: `data:` holds it, anything else names it."""
    inline = isinstance(url, str) and url[:5].lower() == "data:"
    return Weight(images=1) if inline else UNBOUNDED


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
