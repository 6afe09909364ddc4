"""What an owner is told of what their agent has spent: the same words for the same alert."""

from __future__ import annotations

from tinyfat.domain.usage import money

LEVELS = ("50", "80")


def usage_subject(agent: str, kind: str) -> str:
    if kind in LEVELS:
        return f"{agent} has used {kind} % of this month's allowance"
    return {
        "100": f"{agent} has used up this month's allowance",
        "day": f"{agent} has reached today's cap",
        "turn-money": f"{agent} was stopped: one answer cost too much",
        "turn-calls": f"{agent} was stopped: it called the model too often for one answer",
    }[kind]


def usage_text(agent: str, kind: str, spent: int, reserved: int, cap: int, amount: int) -> str:
    """Nano-dollars, but for "turn-calls", where `cap` is calls. `amount`: of the call that was refused; 0: none was."""
    sum_so_far = f"So far this month: {money(spent)}" + (
        f", and {money(reserved)} held for calls under way." if reserved else "."
    )
    could = f" A call that could have cost up to {money(amount)} was refused." if amount else ""
    happened, what_now = {
        "day": (
            f"{agent} has reached its cap of {money(cap)} a day.{could}",
            f"It goes on at midnight (UTC). To allow more: tinyfat cap set {agent} --day DOLLARS",
        ),
        "turn-money": (
            f"One answer of {agent} has reached its cap of {money(cap)}.{could}",
            f"The next question starts afresh. To allow more: tinyfat cap set {agent} --turn DOLLARS",
        ),
        "turn-calls": (
            f"{agent} has called its model {cap} times for one answer and was stopped: it was likely going in circles.",
            f"The next question starts afresh. To allow more: tinyfat cap set {agent} --turn-calls N",
        ),
        "100": (
            f"{agent} has reached its allowance of {money(cap)} this month.{could}",
            "Until the first of next month (UTC) it answers that it has none left. "
            f"To allow more now: tinyfat cap set {agent} --month DOLLARS",
        ),
    }.get(kind) or (
        f"{agent} has used {kind} % of its allowance of {money(cap)} this month.",
        f"It goes on as before. To allow more: tinyfat cap set {agent} --month DOLLARS",
    )
    return f"{happened}\n\n{sum_so_far}\n\n{what_now}\n\nWhat it went into: tinyfat usage {agent} --by turn"
