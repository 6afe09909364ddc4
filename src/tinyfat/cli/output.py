"""What commands print: a table or a panel for people, one JSON value for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

PIPE_COLUMNS = 200  # where there is no terminal whose width counts

console = Console(highlight=False)
if not console.is_terminal:
    console = Console(highlight=False, width=PIPE_COLUMNS)
errors = Console(stderr=True, highlight=False, soft_wrap=True)


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


def local_time(iso: str | None) -> str:
    return datetime.fromisoformat(iso).astimezone().strftime("%Y-%m-%d %H:%M") if iso else "-"
