"""The vendors of models we know: where they are, and what an agent asks them for when nobody chose."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Vendor:
    name: str
    key_variable: str  # the environment variable the vendor's own tools read
    api: str  # link.ModelAccess.api
    url: str
    model: str


# In order of preference where several keys are set.
VENDORS = (
    # MiniMax M2.1: $0.30 and $1.20 per million tokens in and out.
    Vendor(
        "Fireworks",
        "FIREWORKS_API_KEY",
        "openai-completions",
        "https://api.fireworks.ai/inference/v1",
        "accounts/fireworks/models/minimax-m2p1",
    ),
    Vendor("Anthropic", "ANTHROPIC_API_KEY", "anthropic-messages", "https://api.anthropic.com", "claude-sonnet-4-5"),
    Vendor("OpenAI", "OPENAI_API_KEY", "openai-completions", "https://api.openai.com/v1", "gpt-5-mini"),
)
