"""The mail an owner gets when their agent lives on, and what it remembered does not."""

from __future__ import annotations

from tinyfat.domain.failure_kinds import FailureId
from tinyfat.domain.failures import Failure


def fresh_memory_subject(agent: str) -> str:
    return Failure(FailureId.MEMORY_LOST).subject(agent)


def fresh_memory_text(agent: str, address: str) -> str:
    """`address`: where mail for it goes."""
    failure = Failure(FailureId.MEMORY_LOST, {"address": address})
    return f"{failure.words(agent)}\n\n{failure.help(agent)}\n"
