"""`tinyfat fleet`: every server, whose it is, what it costs, and what does not agree with the providers' lists."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from tinyfat.cli.client import Client
from tinyfat.cli.output import console, errors, local_time, print_json, print_table, visible
from tinyfat.domain.usage import money
from tinyfat.settings import load_settings


def fleet(
    look: Annotated[bool, typer.Option("--look", help="Compare with the providers now.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON value.")] = False,
) -> None:
    """Servers and alarms. Exit 1 where something does not agree."""
    found = Client(load_settings()).get("fleet", look="true" if look else "false")
    if as_json:
        print_json(found)
    else:
        _print(found)
    raise typer.Exit(1 if found["alarms"] else 0)


def _print(found: dict[str, Any]) -> None:
    rows = [
        (
            machine["agent"] or f"({machine['pool'] or 'nobody'})",
            machine["kind"],
            machine["state"]
            + (", its box is OUTDATED" if machine.get("box_outdated") else "")
            + ("" if machine["current"] else ", on its way in or out"),
            machine["location"] or "-",
            machine["ipv4"] or machine["ipv6"] or "-",
            machine["image"] or "-",
            money(machine["month_nanodollars"]),
            local_time(machine["seen_at"]),
        )
        for machine in found["machines"]
    ]
    rows += [
        (
            "(image)",
            making["kind"],
            f"makes or tries {making['image']} since {local_time(making['since'])}",
            "-",
            "-",
            "-",
            money(making["month_nanodollars"]),
            "-",
        )
        for making in found["image_machines"]
    ]
    columns = ("agent", "kind", "state", "location", "address", "image", "a month", "heard of")
    print_table(columns, rows, "No servers: `tinyfat agent create NAME --owner ADDRESS --plan fat` makes one.")
    if rows:
        console.print(f"In all {money(found['month_nanodollars'])} a month.")
    for alarm in found["alarms"]:
        since = local_time(alarm["since"])
        errors.print(
            visible(f"{alarm['kind']} since {since}: {alarm['subject']}: {alarm['detail']}"), style="red", markup=False
        )
