"""`tinyfat disk`: what takes room, and which setting bounds it."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from tinyfat.cli.client import Client
from tinyfat.cli.output import console, print_json, print_table, visible
from tinyfat.settings import load_settings


def disk(as_json: Annotated[bool, typer.Option("--json", help="Print one JSON value.")] = False) -> None:
    """What takes room on the disks of the running TinyFat."""
    found = Client(load_settings()).get("disk")
    if as_json:
        print_json(found)
        return
    for one in found["disks"]:
        console.print(visible(disk_words(one)))
    console.print()
    rows = [
        (
            ("  " if taken["inside"] else "") + " ".join(filter(None, (taken["kind"], taken["of"]))),
            ("" if taken["whole"] else "over ") + size_words(taken["bytes"]),
            f"{taken['count']:,}",
            taken["setting"] or "-",
        )
        for taken in _in_order(found["taken"])
    ]
    print_table(("what", "takes", "count", "bounded by"), rows, "Nothing takes room yet.")


def disk_words(disk: dict[str, Any]) -> str:
    said = disk["complaint"] or f"{size_words(disk['free'])} of {size_words(disk['total'])} free"
    return f"{disk['path']} ({', '.join(disk['what'])}): {said}"


def size_words(count: int) -> str:
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} bytes"


def _in_order(taken: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The largest first; what is a part of something, below it."""
    ordered = sorted(taken, key=lambda one: -one["bytes"])

    def below(kind: str) -> list[dict[str, Any]]:
        return [row for one in ordered if one["inside"] == kind for row in (one, *below(one["kind"]))]

    return [row for one in ordered if not one["inside"] for row in (one, *below(one["kind"]))]
