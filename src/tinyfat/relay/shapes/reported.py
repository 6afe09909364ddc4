"""What a vendor says that a call used, by every way its words may be read. Pure.

Vendors agree on little: reasoning is inside the completion (OpenAI) or beside it (xAI, Gemini); the cache is inside the
input (OpenAI) or beside it (Anthropic, Bedrock); the total says which, where there is one. Some name their bill, too.
Whoever bills by the larger reading is not to be paid by the smaller one.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any

from tinyfat.domain.usage import NANODOLLARS_PER_DOLLAR, TOKENS_MAX, Usage

DIGITS_MAX = 12  # of a number that is given as a text
ITERATIONS_MAX = 1_000
OBJECTS_MAX = 64  # of one usage that are read: some wrap it, or tell it apart by models
COST_MAX = 10_000  # dollars of one call: what is more is another money's, or another unit's
TICKS_PER_NANODOLLAR = 10  # xAI, "cost_in_usd_ticks": 10^10 a dollar

_INPUT = ("prompt_tokens", "input_tokens", "promptTokenCount", "prompt_token_count", "inputTokenCount", "inputTokens")
_OUTPUT = ("completion_tokens", "output_tokens", "candidatesTokenCount", "candidates_token_count", "outputTokenCount",
           "outputTokens")  # fmt: skip
_TOTAL = ("total_tokens", "totalTokenCount", "total_token_count", "totalTokens")
_BESIDE_INPUT = ("toolUsePromptTokenCount", "tool_use_prompt_token_count", "citation_tokens")
_REASONING = ("reasoning_tokens", "thoughtsTokenCount", "thoughts_token_count", "thinking_tokens")
# Vendors that name them so count them beside the input (Anthropic, "Tracking cache performance"; Bedrock, TokenUsage);
# gateways that give such an object OpenAI's names mostly add them to it, and then the total is the sum.
_CACHED_BESIDE = ("cache_read_input_tokens", "cacheReadInputTokenCount", "cacheReadInputTokens")
_WRITTEN_BESIDE = ("cache_creation_input_tokens", "cacheWriteInputTokenCount", "cacheWriteInputTokens")
_CACHED = (*_CACHED_BESIDE, "cached_tokens", "prompt_cache_hit_tokens", "cache_read_tokens",
           "cachedContentTokenCount", "cached_content_token_count")  # fmt: skip
_MISSED = ("prompt_cache_miss_tokens",)
_WRITTEN = (*_WRITTEN_BESIDE, "cache_creation_tokens", "cache_write_tokens")
_INPUT_DETAILS = ("prompt_tokens_details", "input_tokens_details", "prompt_token_details", "input_token_details")
_OUTPUT_DETAILS = ("completion_tokens_details", "output_tokens_details", "completion_token_details",
                   "output_token_details")  # fmt: skip
_KINDS = ("text_tokens", "audio_tokens", "image_tokens", "video_tokens")  # each token is of one of them
_SAID = (*_KINDS[1:], "reasoning_tokens", "rejected_prediction_tokens", "accepted_prediction_tokens")
_FEES = ("server_tool_use", "num_search_queries", "num_sources_used", "search_units")
_USUAL = {"prompt_tokens", "completion_tokens", "input_tokens", "output_tokens", "total_tokens"}
_WRAPPED = ("billed_units", "tokens", "usage")  # Cohere has the first two
_NOT_WRAPPED = {*_INPUT_DETAILS, *_OUTPUT_DETAILS, *_FEES, "cache_creation", "cost", "cost_details", "iterations"}
_COSTS = ("cost", "total_cost", "estimated_cost")


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
    fees: int = 0  # how often something was used that is not tokens
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
    """The readings of a usage object, or of a list of them; none where it says nothing. `cache_beside`: by the
    surface's own words the cache is beside the input."""
    if isinstance(usage, Mapping) and usage.keys() <= _USUAL:
        usual = _usual(usage)
        if usual is not None:
            return [usual]
    found: list[Count] = []
    for one in _objects(usage):
        found += _readings(one, cache_beside)
        iterations = one.get("iterations")  # Anthropic: what compaction took is in here alone
        if isinstance(iterations, list):
            found.append(_sum(iterations[:ITERATIONS_MAX], cache_beside))
    if isinstance(usage, list):
        found.append(_sum(usage[:OBJECTS_MAX], cache_beside))
    return [count for count in found if not count.empty]


def added(each: Sequence[Count]) -> Count:
    """All of them together."""
    if not each:
        return Count(None, None)
    inputs = [count.input for count in each if count.input is not None]
    outputs = [count.output for count in each if count.output is not None]
    sums = {name: sum(getattr(count, name) for count in each) for name in
            ("total", "cached", "written", "written_5m", "written_1h", "reasoning", "fees", "cost")}  # fmt: skip
    return Count(sum(inputs) if inputs else None, sum(outputs) if outputs else None, **sums)


def _sum(parts: Sequence[object], cache_beside: bool) -> Count:
    """By the reading of each that has more input."""
    return added([_readings(part, cache_beside)[-1] for part in parts if isinstance(part, Mapping)])


def best(found: Iterable[Count]) -> Usage | None:
    """The largest of the readings that say all; without prices, by its tokens."""
    whole = [usage for count in found if (usage := count.usage) is not None]
    return max(whole, key=lambda usage: (usage.input + usage.output, usage.output), default=None)


def read_json(data: bytes) -> Any:
    """What a vendor said; of a field given twice, the dearer. None where it is no JSON."""
    try:
        return json.loads(data, object_pairs_hook=merged)
    except (ValueError, RecursionError):
        return None


def merged(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """For json's `object_pairs_hook`."""
    found = dict(pairs)
    if len(found) == len(pairs):
        return found
    found = {}
    for name, value in pairs:
        found[name] = _dearer(name, found[name], value) if name in found else value
    return found


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


def _objects(usage: object) -> list[Mapping[str, Any]]:
    """The object itself, and what it wraps: some say it twice, or once for each of several models."""
    found: list[Mapping[str, Any]] = []
    waiting: list[tuple[object, bool]] = [(usage, True)]
    while waiting and len(found) < OBJECTS_MAX:
        one, named = waiting.pop()
        if isinstance(one, list):
            waiting += [(part, named) for part in one[:OBJECTS_MAX]]
        elif isinstance(one, Mapping):
            if named or (_largest([one], _INPUT) is not None and _largest([one], _OUTPUT) is not None):
                found.append(one)
            waiting += [
                (inner, name in _WRAPPED)
                for name, inner in one.items()
                if isinstance(inner, (Mapping, list)) and name not in _NOT_WRAPPED
            ]
    return found


def _readings(usage: Mapping[str, Any], cache_beside: bool) -> list[Count]:
    """Two, where nothing tells whether the cache is inside the input or beside it."""
    inside = _count(usage, cache_beside)
    apart = sum(_largest([usage], names) or 0 for names in (_CACHED_BESIDE, _WRITTEN_BESIDE))
    if cache_beside or not apart:
        return [inside]
    sums = {(_largest([usage], _INPUT) or 0) + made for made in _made_either_way(usage)}
    if inside.total in sums:
        return [inside]
    beside = _count(usage, cache_beside=True)
    return [beside] if inside.total - apart in sums else [inside, beside]


def _made_either_way(usage: Mapping[str, Any]) -> tuple[int, int]:
    made = _largest([usage], _OUTPUT) or 0
    return made, made + (_largest([usage, *_parts(usage, _OUTPUT_DETAILS)], _REASONING) or 0)


def _count(usage: Mapping[str, Any], cache_beside: bool) -> Count:
    details = _parts(usage, _INPUT_DETAILS)
    said = _parts(usage, _OUTPUT_DETAILS)
    cached = _smallest([usage, *details], _CACHED)
    made_apart = usage.get("cache_creation")
    five = _largest([made_apart], ("ephemeral_5m_input_tokens",)) or 0
    hour = _largest([made_apart], ("ephemeral_1h_input_tokens",)) or 0
    written = max(_largest([usage, *details], _WRITTEN) or 0, five + hour)
    reasoning = _largest([usage, *said], _REASONING) or 0
    total = _largest([usage], _TOTAL) or 0
    taken = _taken(usage, details, cached, written, cache_beside)
    made = _made(usage, said, reasoning, total)
    if taken and total > taken:
        made = max(made or 0, total - taken)
    elif made is not None and not taken and total > made:
        taken = total - made
    most = taken or 0
    cached = min(cached, most)
    written = min(written, most - cached)
    fees = sum(_used(usage.get(name)) for name in _FEES)
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


def _made(usage: Mapping[str, Any], said: Sequence[Mapping[str, Any]], reasoning: int, total: int) -> int | None:
    """Reasoning is inside the output where the vendor's own words say so (in the details), or the total."""
    made = _largest([usage], _OUTPUT)
    if made is None and not reasoning:
        return None
    within = max((sum(tokens(part.get(name)) or 0 for name in (_KINDS[0], *_SAID)) for part in said), default=0)
    apart = (_largest([usage], _REASONING) or 0) if not total else 0
    if reasoning > (made or 0):
        apart = reasoning
    return max((made or 0) + apart, within)


def _parts(usage: Mapping[str, Any], names: Sequence[str]) -> list[Mapping[str, Any]]:
    return [part for name in names if isinstance(part := usage.get(name), Mapping)]


def _said(objects: Sequence[object], names: Sequence[str]) -> list[int]:
    return [
        number
        for one in objects
        if isinstance(one, Mapping)
        for name in names
        if (number := tokens(one.get(name))) is not None
    ]


def _largest(objects: Sequence[object], names: Sequence[str]) -> int | None:
    return max(_said(objects, names), default=None)


def _smallest(objects: Sequence[object], names: Sequence[str]) -> int:
    """Of what makes a call cheaper; a 0 is said where nothing is known."""
    return min(filter(None, _said(objects, names)), default=0)


def _used(fee: object) -> int:
    numbers = [tokens(value) for value in fee.values()] if isinstance(fee, Mapping) else [tokens(fee)]
    return sum(filter(None, numbers))


def _cost(usage: Mapping[str, Any]) -> int:
    """Nano-dollars. OpenRouter: a number, and where the call went by a key of its user's, its fee alone, beside what
    the provider takes; Perplexity: an object with the sum of its parts; DeepInfra: an estimate; xAI: in ticks."""
    named = max(_money(usage.get(name)) for name in _COSTS)
    details = usage.get("cost_details")
    upstream = _money(details.get("upstream_inference_cost")) if isinstance(details, Mapping) else 0
    bill = named + upstream if usage.get("is_byok") else max(named, upstream)
    ticks = usage.get("cost_in_usd_ticks")
    if isinstance(ticks, int) and not isinstance(ticks, bool) and ticks > 0:
        bill = max(bill, _believed(-(-ticks // TICKS_PER_NANODOLLAR)))
    return bill


def _money(dollars: object) -> int:
    if isinstance(dollars, Mapping):
        parts = [_money(value) for value in list(dollars.values())[:OBJECTS_MAX]]
        return _money(dollars["total_cost"]) if dollars.get("total_cost") else sum(parts)
    if isinstance(dollars, bool) or not isinstance(dollars, (int, float, str)) or len(str(dollars)[:50]) > 40:
        return 0
    try:
        amount = Decimal(str(dollars))
    except InvalidOperation:
        return 0
    return _believed(math.ceil(amount * NANODOLLARS_PER_DOLLAR)) if amount.is_finite() else 0


def _believed(nano: int) -> int:
    return nano if 0 < nano <= COST_MAX * NANODOLLARS_PER_DOLLAR else 0


def _dearer(name: str, one: Any, other: Any) -> Any:
    if isinstance(one, dict) and isinstance(other, dict):
        common = one.keys() & other.keys()
        return {**one, **other, **{name: _dearer(name, one[name], other[name]) for name in common}}
    numbers = _number(one), _number(other)
    if numbers[0] is None or numbers[1] is None:
        return one if numbers[0] is not None or other is None else other
    cheaper, dearer = (one, other) if numbers[0] < numbers[1] else (other, one)
    return cheaper if name in _CACHED else dearer


def _number(value: Any) -> float | None:
    """To compare by."""
    if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
        return min(value, 10.0**18) if value >= 0 else None
    whole = tokens(value)
    return None if whole is None else float(whole)
