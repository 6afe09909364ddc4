"""What an owner is told of what their agent has spent: the same words for the same alert."""

from __future__ import annotations

from tinyfat.domain.failure_kinds import FailureId
from tinyfat.domain.failures import Failure, Value
from tinyfat.domain.usage import money

LEVELS = ("50", "80")
_FAILURES = {
    "100": FailureId.ALLOWANCE_USED_UP,
    "day": FailureId.DAY_CAP_REACHED,
    "turn-money": FailureId.TURN_STOPPED_MONEY,
    "turn-calls": FailureId.TURN_STOPPED_CALLS,
}


def usage_subject(agent: str, kind: str) -> str:
    return _failure(kind, {}).subject(agent)


def usage_text(agent: str, kind: str, spent: int, reserved: int, cap: int, amount: int) -> str:
    """Nano-dollars, but for "turn-calls", where `cap` is calls. `amount`: of the call that was refused; 0: none was."""
    fields: dict[str, Value] = {"spent": money(spent)}
    fields |= {"calls": cap} if kind == "turn-calls" else {"cap": money(cap)}
    fields |= {"reserved": money(reserved)} if reserved else {}
    fields |= {"amount": money(amount)} if amount else {}
    failure = _failure(kind, fields)
    return f"{failure.words(agent)}\n\n{failure.help(agent)}"


def _failure(kind: str, fields: dict[str, Value]) -> Failure:
    level: dict[str, Value] = {"percent": kind} if kind in LEVELS else {}
    return Failure(_FAILURES.get(kind, FailureId.ALLOWANCE_USED), level | fields)
