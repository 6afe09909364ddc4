"""`tinyfat money`: what the agents bring in and what they cost."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from tinyfat.cli.client import Client
from tinyfat.cli.output import console, print_json, print_table
from tinyfat.domain.usage import money as shown
from tinyfat.settings import load_settings


def money(as_json: Annotated[bool, typer.Option("--json", help="Print one JSON value.")] = False) -> None:
    """This month (UTC): price, cost of machine and inference, margin, and where that leads; losers first."""
    month = Client(load_settings()).get("money")
    if as_json:
        print_json(month)
        return
    rows = [_row(agent["name"], agent["plan"], agent) for agent in month["agents"]]
    if rows:
        rows.append(_row("in all", "", month["in_all"]))
    console.print(f"{month['month']} (UTC); the forecast is for the month's end, if things go on as they did.")
    columns = ("agent", "plan", "price", "machine", "inference", "margin", "forecast: cost", "margin")
    print_table(columns, rows, "No agents yet: `tinyfat agent create NAME --owner you@example.org` makes one.")
    losing = [agent["name"] for agent in month["agents"] if agent["forecast_margin"] < 0]
    if losing:
        console.print(
            f"Losing money: {', '.join(losing)}. `tinyfat usage NAME` shows on what, `tinyfat cap set` bounds it."
        )


def _row(name: str, plan: str, line: dict[str, Any]) -> tuple[str, ...]:
    owners = f" (+ {shown(line['paid_by_owner'])} by owners)" if line["paid_by_owner"] else ""
    return (
        name,
        plan,
        shown(line["price"]),
        shown(line["machine"]),
        shown(line["inference"]) + owners,
        shown(line["margin"]),
        shown(line["forecast_cost"]),
        shown(line["forecast_margin"]),
    )
