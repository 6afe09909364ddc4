"""What of a request its bytes do not bound: a token of text is at least a byte, but an image of one colour is a few
hundred bytes and thousands of tokens, and what is named by an address is as long as the model's window allows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tinyfat.ports.inference import Target

# An image is scaled down to at most 4,784 tokens (Anthropic, "Vision": models of high resolution) or 1,536 patches,
# each of at most 2.46 tokens (OpenAI, "Images and vision").
IMAGE_TOKENS_MAX = 5_000


@dataclass(frozen=True, slots=True)
class Weight:
    images: int = 0  # in the request itself
    unbounded: bool = False  # kept or fetched by the vendor, or a document: its pages may be empty, and many

    def input_bound(self, size: int, target: Target, more: int = 0) -> int:
        """Tokens, of a request of `size` bytes. `more`: what the vendor adds by itself."""
        if self.unbounded:
            return target.input_max
        return min(size + self.images * IMAGE_TOKENS_MAX + more, target.input_max)


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
