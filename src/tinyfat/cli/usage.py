"""`tinyfat usage NAME`: what an agent's calls to models cost this month."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

import typer

from tinyfat.cli.client import Client
from tinyfat.cli.output import console, print_json, print_table
from tinyfat.domain.usage import money
from tinyfat.settings import load_settings

BAR_CHARS_MAX = 16
_EIGHTHS = " ▏▎▍▌▋▊▉"


class By(StrEnum):
    DAY = "day"
    MODEL = "model"
    TURN = "turn"


def usage(
    name: Annotated[str, typer.Argument(help="The agent's name.")],
    by: Annotated[By, typer.Option(help="Summed by what.")] = By.DAY,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON value.")] = False,
) -> None:
    """What an agent has spent on models this month (UTC), and a chart of it."""
    spent = Client(load_settings()).get("agents", name, "usage", by=by.value)
    if as_json:
        print_json(spent)
        return
    cap = spent["caps"]["month_nanodollars"]
    bound = ", no cap" if cap is None else f" of {money(cap)}"
    if spent["caps"]["month_included"] and any(line["paid_by_owner"] for line in spent["lines"]):
        bound = f"; included, for what the operator pays: {money(cap)}"
    held = f", {money(spent['reserved_nanodollars'])} held" if spent["reserved_nanodollars"] else ""
    switched = "; switched off (`tinyfat cap unkill`)" if spent["caps"]["killed"] else ""
    console.print(
        f"{spent['name']} in {spent['month']}: {money(spent['spent_nanodollars'])}{bound}{held}, "
        f"{spent['calls']} calls{switched}"
    )
    lines = sorted(spent["lines"], key=lambda line: line["of"]) if by is By.DAY else spent["lines"]
    most = max((_cost(line) for line in lines), default=0)
    rows = [
        (
            line["of"] or "(none named)",
            bar(_cost(line), most),
            money(_cost(line)) + (" ~" if line["estimated"] else ""),
            str(line["calls"]),
            f"{line['input']:,}",
            f"{line['cached']:,}",
            f"{line['output']:,}",
        )
        for line in lines
    ]
    print_table((by.value, "", "cost", "calls", "tokens in", "of them cached", "out"), rows, "No calls yet this month.")
    if any(line["estimated"] for line in lines):
        console.print("~ in part estimated: the vendor did not report the tokens of every call.")


def bar(amount: int, most: int) -> str:
    """A bar of BAR_CHARS_MAX cells for the most; what is not nothing is never invisible."""
    if amount <= 0 or most <= 0:
        return ""
    eighths = max(1, round(amount * BAR_CHARS_MAX * 8 / most))
    return ("█" * (eighths // 8) + _EIGHTHS[eighths % 8]).rstrip()


def _cost(line: dict[str, Any]) -> int:
    cost: int = line["paid_by_us"] + line["paid_by_owner"]
    return cost
