"""What commands print: a table or a panel for people, one JSON value for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

console = Console(highlight=False)
errors = Console(stderr=True, highlight=False)


def print_json(value: Any) -> None:
    json.dump(value, sys.stdout, ensure_ascii=False, indent=2)
    sys.stdout.write("\n")


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]], empty: str) -> None:
    """`empty` is said where there is no row."""
    table = Table(*columns, box=None, pad_edge=False, header_style="bold")
    count = 0
    for row in rows:
        table.add_row(*(escape(visible(cell)) for cell in row))
        count += 1
    console.print(table if count else empty)


def print_fields(fields: Iterable[tuple[str, str]]) -> None:
    table = Table.grid(padding=(0, 2))
    for name, value in fields:
        table.add_row(f"[bold]{name}[/bold]", escape(visible(value)))
    console.print(table)


def visible(text: str) -> str:
    """Mail comes from strangers: nothing in it may steer the terminal."""
    return "".join(c if c.isprintable() or c in "\n\t" else "\ufffd" for c in text.replace("\r\n", "\n"))


def age(iso: str | None) -> str:
    return iso.replace("T", " ")[:19] if iso else "-"
