"""What a vendor says that a call used, by every way its words may be read. Pure.

Vendors agree on little: reasoning is inside the completion (OpenAI) or beside it (xAI, Gemini); the cache is inside the
input (OpenAI) or beside it (Anthropic); the object comes once, with every chunk, as sums or as steps, at the top, in
`choices[0]` (Moonshot) or under `x_groq`. Whoever bills by the larger reading is not to be paid by the smaller one.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tinyfat.domain.usage import NANODOLLARS_PER_DOLLAR, TOKENS_MAX, Usage

DIGITS_MAX = 12  # of a number that is given as a text
READINGS_MAX = 16  # of one stream that are kept apart
ITERATIONS_MAX = 1_000
COST_MAX = 1_000_000  # dollars

_INPUT = ("prompt_tokens", "input_tokens", "promptTokenCount", "prompt_token_count", "inputTokenCount", "inputTokens")
_OUTPUT = ("completion_tokens", "output_tokens", "candidatesTokenCount", "candidates_token_count", "outputTokenCount",
           "outputTokens")  # fmt: skip
_TOTAL = ("total_tokens", "totalTokenCount", "total_token_count", "totalTokens")
_BESIDE_INPUT = ("toolUsePromptTokenCount", "tool_use_prompt_token_count")
_REASONING = ("reasoning_tokens", "thoughtsTokenCount", "thoughts_token_count", "thinking_tokens")
_CACHED = ("cached_tokens", "cache_read_input_tokens", "prompt_cache_hit_tokens", "cache_read_tokens",
           "cachedContentTokenCount", "cached_content_token_count", "cacheReadInputTokenCount",
           "cacheReadInputTokens")  # fmt: skip
_MISSED = ("prompt_cache_miss_tokens",)
_WRITTEN = ("cache_creation_input_tokens", "cache_creation_tokens", "cache_write_tokens", "cacheWriteInputTokenCount",
            "cacheWriteInputTokens")  # fmt: skip
_INPUT_DETAILS = ("prompt_tokens_details", "input_tokens_details", "prompt_token_details", "input_token_details")
_OUTPUT_DETAILS = ("completion_tokens_details", "output_tokens_details", "completion_token_details",
                   "output_token_details")  # fmt: skip
_KINDS = ("text_tokens", "audio_tokens", "image_tokens", "video_tokens")  # each token is of one of them
_SAID = (*_KINDS[1:], "reasoning_tokens", "rejected_prediction_tokens", "accepted_prediction_tokens")
_FEES = ("server_tool_use", "num_search_queries", "num_sources_used", "search_units", "citation_tokens")
_USUAL = {"prompt_tokens", "completion_tokens", "input_tokens", "output_tokens", "total_tokens"}
_NESTED = ("billed_units", "tokens")  # Cohere


@dataclass(frozen=True, slots=True)
class Count:
    """Tokens by one reading. `input` includes `cached` and `written`, `output` includes `reasoning`. None: it does not
    say, which 0 of the input is too: there is no call without one."""

    input: int | None
    output: int | None
    total: int = 0
    cached: int = 0
    written: int = 0
    written_5m: int = 0  # of `written`, as far as it is told apart
    written_1h: int = 0
    reasoning: int = 0
    fees: bool = False  # something that is not tokens was used, too
    cost: int = 0  # nano-dollars, where the vendor names its bill

    @property
    def usage(self) -> Usage | None:
        """None where it does not say all."""
        if not self.input or self.output is None:
            return None
        return Usage(self.input, self.output, self.cached, self.written, self.reasoning,
                     cache_written_1h=min(self.written_1h, self.written))  # fmt: skip

    @property
    def empty(self) -> bool:
        return not (self.input or self.output or self.total or self.cost)


def tokens(value: object) -> int | None:
    """A number of tokens, however it is written down; None where it cannot be one."""
    if isinstance(value, str) and value.isascii() and value.strip().isdigit() and len(value) <= DIGITS_MAX:
        value = int(value)
    if isinstance(value, float) and math.isfinite(value):
        value = math.ceil(value)
    if isinstance(value, bool) or not isinstance(value, int):
        return None
    return value if 0 <= value <= TOKENS_MAX else None


def counts(usage: object, cache_beside: bool = False) -> list[Count]:
    """The readings of a usage object; none where it says nothing. `cache_beside`: by the surface's own words the cache
    is beside the input."""
    if not isinstance(usage, Mapping):
        return []
    if usage.keys() <= _USUAL:
        usual = _usual(usage)
        if usual is not None:
            return [usual]
    objects = [usage, *(inner for name in _NESTED if isinstance(inner := usage.get(name), Mapping))]
    found = [_count(one, cache_beside) for one in objects]
    iterations = usage.get("iterations")  # Anthropic: what compaction took is in here alone
    if isinstance(iterations, list):
        each = [_count(one, cache_beside) for one in iterations[:ITERATIONS_MAX] if isinstance(one, Mapping)]
        found.append(added(each))
    return [count for count in found if not count.empty]


def added(each: Sequence[Count]) -> Count:
    """All of them together."""
    if not each:
        return Count(None, None)
    inputs = [count.input for count in each if count.input is not None]
    outputs = [count.output for count in each if count.output is not None]
    sums = {name: sum(getattr(count, name) for count in each) for name in
            ("total", "cached", "written", "written_5m", "written_1h", "reasoning", "cost")}  # fmt: skip
    return Count(sum(inputs) if inputs else None, sum(outputs) if outputs else None,
                 fees=any(count.fees for count in each), **sums)  # fmt: skip


def best(found: Iterable[Count]) -> Usage | None:
    """The largest of the readings that say all; without prices, by its tokens."""
    whole = [usage for count in found if (usage := count.usage) is not None]
    return max(whole, key=lambda usage: (usage.input + usage.output, usage.output), default=None)


def read_json(data: bytes) -> Any:
    """What a vendor said; of a field given twice, the larger. None where it is no JSON."""
    try:
        return json.loads(data, object_pairs_hook=_merged)
    except (ValueError, RecursionError):
        return None


class Tally:
    """All that one stream says of its usage. `place`: where in an event; of choices, each counts its own."""

    def __init__(self) -> None:
        self._places: dict[str, list[Count]] = {}
        self._last: dict[str, Count] = {}
        self._most: dict[str, Count] = {}  # in each of its fields
        self._sums: dict[str, int] = {}  # of the output
        self._stepping: set[str] = set()

    def add(self, place: str, usage: object, cache_beside: bool = False) -> bool:
        """True where `usage` says how much was produced until now."""
        found = counts(usage, cache_beside)
        for number, count in enumerate(found):
            self._add(f"{place} {number}" if number else place, count)
        return any(count.output is not None for count in found)

    def _add(self, place: str, count: Count) -> None:
        before = self._last.get(place)
        self._last[place] = count
        self._sums[place] = min(self._sums.get(place, 0) + (count.output or 0), TOKENS_MAX)
        self._places[place] = _kept(self._places.get(place, []), count)
        if before is None:
            self._most[place] = count
            return
        if _falls(before, count):
            self._stepping.add(place)
        if place in self._stepping:
            self._most[place] = _together(self._most[place], count)
            self._places[place] = _kept(self._places[place], replace(self._most[place], output=self._sums[place]))
        else:
            self._most[place] = count

    @property
    def readings(self) -> list[Count]:
        choices = [found for place, found in self._places.items() if place.startswith("choice")]
        others = [count for place, found in self._places.items() if not place.startswith("choice") for count in found]
        if len(choices) < 2:
            return [*others, *(count for found in choices for count in found)]
        each = [max(found, key=lambda count: (count.output or 0, count.input or 0)) for found in choices]
        together = replace(added(each), input=max((count.input or 0 for count in each), default=0) or None, total=0)
        return [*others, together]


def _usual(usage: Mapping[str, Any]) -> Count | None:
    """Of the two sums and their total alone, as most calls are: all else takes longer to look for than to read them.
    None where they do not add up, or are no numbers."""
    taken, made = usage.get("prompt_tokens", usage.get("input_tokens")), usage.get("completion_tokens")
    if made is None:
        made = usage.get("output_tokens")
    if type(taken) is not int or type(made) is not int or not (0 < taken <= TOKENS_MAX and 0 <= made <= TOKENS_MAX):
        return None
    given = len(usage) - ("total_tokens" in usage)
    if given != 2 or usage.get("total_tokens", taken + made) != taken + made:
        return None
    return Count(taken, made, taken + made if "total_tokens" in usage else 0)


def _count(usage: Mapping[str, Any], cache_beside: bool) -> Count:
    details = _parts(usage, _INPUT_DETAILS)
    said = _parts(usage, _OUTPUT_DETAILS)
    cached = _largest([usage, *details], _CACHED) or 0
    made_apart = usage.get("cache_creation")
    five = _largest([made_apart], ("ephemeral_5m_input_tokens",)) or 0
    hour = _largest([made_apart], ("ephemeral_1h_input_tokens",)) or 0
    written = max(_largest([usage, *details], _WRITTEN) or 0, five + hour)
    reasoning = _largest([usage, *said], _REASONING) or 0
    total = _largest([usage], _TOTAL) or 0
    taken = _taken(usage, details, cached, written, cache_beside)
    made = _largest([usage], _OUTPUT)
    if made is not None or reasoning:
        within = max((sum(tokens(part.get(name)) or 0 for name in (_KINDS[0], *_SAID)) for part in said), default=0)
        made = max(made or 0, within, (made or 0) + reasoning if reasoning > (made or 0) else 0)
    if taken and total > taken:
        made = max(made or 0, total - taken)
    elif made is not None and not taken and total > made:
        taken = total - made
    fees = any(_used(usage.get(name)) for name in _FEES)
    most = taken or 0
    cached = min(cached, most)
    written = min(written, most - cached)
    return Count(taken, made, total, cached, written, min(five, written), min(hour, written),
                 min(reasoning, made or 0), fees, _cost(usage))  # fmt: skip


def _taken(
    usage: Mapping[str, Any], details: Sequence[Mapping[str, Any]], cached: int, written: int, cache_beside: bool
) -> int | None:
    taken = _largest([usage], _INPUT)
    kinds = max((sum(tokens(part.get(name)) or 0 for name in _KINDS) for part in details), default=0)
    missed = _largest([usage], _MISSED)
    if taken is None and (kinds or missed):
        taken = 0
    if taken is None:
        return cached + written or None
    taken += sum(tokens(usage.get(name)) or 0 for name in _BESIDE_INPUT)
    if cache_beside or cached + written > taken:
        taken += cached + written
    return max(taken, kinds, cached + (missed or 0)) or None


def _parts(usage: Mapping[str, Any], names: Sequence[str]) -> list[Mapping[str, Any]]:
    return [part for name in names if isinstance(part := usage.get(name), Mapping)]


def _largest(objects: Sequence[object], names: Sequence[str]) -> int | None:
    found = [
        number
        for one in objects
        if isinstance(one, Mapping)
        for name in names
        if (number := tokens(one.get(name))) is not None
    ]
    return max(found, default=None)


def _used(fee: object) -> bool:
    return any(tokens(value) for value in fee.values()) if isinstance(fee, Mapping) else bool(tokens(fee))


def _cost(usage: Mapping[str, Any]) -> int:
    """OpenRouter: a number; Perplexity: an object with the sum of its parts. Dollars both."""
    cost = usage.get("cost")
    if isinstance(cost, Mapping):
        cost = cost.get("total_cost")
    if isinstance(cost, bool) or not isinstance(cost, (int, float)) or not 0 <= cost <= COST_MAX:
        return 0
    return math.ceil(cost * NANODOLLARS_PER_DOLLAR)


def _falls(before: Count, count: Count) -> bool:
    """Sums never do: these are steps."""
    return (count.input or 0) < (before.input or 0) or (count.output or 0) < (before.output or 0)


def _kept(found: list[Count], new: Count) -> list[Count]:
    """Without what `new` is at least as much as in everything."""
    if any(_covers(count, new) for count in found):
        return found
    kept = [count for count in found if not _covers(new, count)]
    return [*kept, new] if len(kept) < READINGS_MAX else [*kept[:-1], _together(kept[-1], new)]


def _covers(one: Count, other: Count) -> bool:
    """What was read from the cache is cheaper than the rest, so more of it is not more."""
    fresh = (one.input or 0) - one.cached - one.written, (other.input or 0) - other.cached - other.written
    names = ("total", "cached", "written", "written_1h", "fees", "cost")
    return fresh[0] >= fresh[1] and (one.output or 0) >= (other.output or 0) and all(
        getattr(one, name) >= getattr(other, name) for name in names
    )  # fmt: skip


def _together(one: Count, other: Count) -> Count:
    names = ("input", "output", "total", "cached", "written", "written_5m", "written_1h", "reasoning", "cost")
    most = {name: max(getattr(one, name) or 0, getattr(other, name) or 0) for name in names}
    return Count(**most, fees=one.fees or other.fees)


def _merged(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) == len(pairs):
        return found
    found = {}
    for name, value in pairs:
        found[name] = _larger(found[name], value) if name in found else value
    return found


def _larger(one: Any, other: Any) -> Any:
    if isinstance(one, dict) and isinstance(other, dict):
        return {**one, **other, **{name: _larger(one[name], other[name]) for name in one.keys() & other.keys()}}
    numbers = tokens(one), tokens(other)
    if numbers[0] is not None and (numbers[1] is None or numbers[0] > numbers[1]):
        return one
    return other if other is not None else one
