"""The headers of a request that go on to a vendor: few, and of those that switch features on, what is written here.

A header may come in several lines (RFC 9110, 5.3): all of them count, for us as for the vendor.
"""

from __future__ import annotations

from collections.abc import Mapping

from multidict import MultiMapping

from tinyfat.relay.bodies import TooMuch
from tinyfat.relay.shapes.allowed import shown

_ONE = ("anthropic-version", "idempotency-key")
# What costs no more than the tokens that are counted, and names nothing that lies at the vendor (AnthropicBetaParam,
# and what runtimes send). Some are the rule by now, and change nothing.
_BETAS: Mapping[str, frozenset[str]] = {
    "anthropic-beta": frozenset((
        "cache-diagnosis-2026-04-07", "claude-code-20250219", "computer-use-2024-10-22", "computer-use-2025-01-24",
        "computer-use-2025-11-24", "context-management-2025-06-27", "dev-full-thinking-2025-05-14",
        "effort-2025-11-24", "extended-cache-ttl-2025-04-11", "fine-grained-tool-streaming-2025-05-14",
        "interleaved-thinking-2025-05-14", "max-tokens-3-5-sonnet-2024-07-15",
        "mid-conversation-output-config-2026-07-01", "model-context-window-exceeded-2025-08-26", "oauth-2025-04-20",
        "output-128k-2025-02-19", "output-300k-2026-03-24", "pdfs-2024-09-25", "prompt-caching-2024-07-31",
        "prompt-caching-scope-2026-01-05", "structured-outputs-2025-11-13", "task-budgets-2026-03-13",
        "thinking-display-updates-2026-08-18", "thinking-token-count-2026-05-13", "token-counting-2024-11-01",
        "token-efficient-tools-2025-02-19",
    )),
    "openai-beta": frozenset(("responses=experimental", "responses=v1")),
}  # fmt: skip


def passed_on(headers: MultiMapping[str]) -> dict[str, str]:
    """Raises TooMuch for what is not allowed, or given twice where one is meant."""
    passed: dict[str, str] = {}
    for name in _ONE:
        lines = headers.getall(name, [])
        if len(set(lines)) > 1:
            raise TooMuch(400, f"{name} is given twice.")
        if lines:
            passed[name] = lines[0]
    for name, allowed in _BETAS.items():
        words = [word for line in headers.getall(name, []) for part in line.split(",") if (word := part.strip())]
        for word in words:
            if word not in allowed:
                raise TooMuch(400, f"{name}: {shown(word)} is not offered here.")
        if words:
            passed[name] = ",".join(dict.fromkeys(words))
    return passed
