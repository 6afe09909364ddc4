"""`tinyfat cap ...`: what an agent may spend on models, and the switch that stops it."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from tinyfat.cli.client import Client, WrongUse
from tinyfat.cli.output import console, print_fields, print_json
from tinyfat.domain.usage import money
from tinyfat.settings import load_settings

app = typer.Typer(no_args_is_help=True, help="What an agent may spend on models; checked before every call.")
INCLUDED = ", included: bounds what the operator pays, not calls on the owner's own key"
Json = Annotated[bool, typer.Option("--json", help="Print one JSON value.")]
Name = Annotated[str, typer.Argument(help="The agent's name.")]


@app.command("set")
def set_caps(
    name: Name,
    month: Annotated[str | None, typer.Option(help="Dollars a calendar month (UTC), none, or included.")] = None,
    day: Annotated[str | None, typer.Option(help="Dollars a day (UTC), or none.")] = None,
    turn: Annotated[str | None, typer.Option(help="Dollars for one answer, or none.")] = None,
    turn_calls: Annotated[str | None, typer.Option(help="Calls for one answer, or none.")] = None,
    as_json: Json = False,
) -> None:
    """Set one cap or several; those not named stay. Judged by from the next call on."""
    wanted = {"month": month, "day": day, "turn": turn, "turn_calls": turn_calls}
    given = {kind: text for kind, text in wanted.items() if text is not None}
    if not given:
        raise WrongUse("Say which cap: --month, --day, --turn (dollars) or --turn-calls.")
    _print(Client(load_settings()).post("agents", name, "caps", body=given), as_json)


@app.command()
def show(name: Name, as_json: Json = False) -> None:
    """The caps of an agent."""
    _print(Client(load_settings()).get("agents", name, "caps"), as_json)


@app.command()
def kill(name: Name, as_json: Json = False) -> None:
    """Switch an agent's calls off: those under way end, no other begins."""
    _print(Client(load_settings()).post("agents", name, "killed", body={"killed": True}), as_json)


@app.command()
def unkill(name: Name, as_json: Json = False) -> None:
    """Switch an agent's calls on again."""
    _print(Client(load_settings()).post("agents", name, "killed", body={"killed": False}), as_json)


def _print(caps: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(caps)
        return
    calls = caps["turn_calls"]
    print_fields(
        [
            ("agent", caps["name"]),
            ("month", dollars(caps["month_nanodollars"]) + (INCLUDED if caps["month_included"] else "")),
            ("day", dollars(caps["day_nanodollars"])),
            ("one answer", f"{dollars(caps['turn_nanodollars'])}, {'no cap' if calls is None else calls} calls"),
        ]
    )
    if caps["killed"]:
        console.print(f"Switched off: it may not call a model. `tinyfat cap unkill {caps['name']}` switches it on.")


def dollars(cap: int | None) -> str:
    return "no cap" if cap is None else money(cap)
