"""What commands print: a table or a panel for people, one JSON value for programs.

Much of it was written by strangers: mail, boxes, vendors. Nothing in it may steer the terminal or be read as markup, so
every text goes through here: `console` and `errors` know no markup and print only what is visible.
"""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

PIPE_COLUMNS = 200  # where there is no terminal whose width counts


class Terminal(Console):
    """rich's, for texts of strangers: no markup, no emoji names, no control characters. What is to be bold is a
    `Text`, or has a `style`."""

    def __init__(self, **named: Any) -> None:
        super().__init__(highlight=False, markup=False, emoji=False, **named)

    def render_str(self, text: str, **named: Any) -> Text:
        """Every string that is printed, and every cell of a table, passes here."""
        return super().render_str(visible(text), **{**named, "markup": False, "emoji": False})


console = Terminal()
if not console.is_terminal:
    console = Terminal(width=PIPE_COLUMNS)
errors = Terminal(stderr=True, soft_wrap=True)


def fit_encoding() -> None:
    """What the terminal's encoding does not have is shown as a question mark, and ends no command."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def print_json(value: Any, indent: int | None = 2) -> None:
    """Characters that a terminal would obey are escaped: JSON of the same value."""
    plain = not (sys.stdout.encoding or "").lower().startswith("utf")
    text = json.dumps(value, ensure_ascii=plain, indent=indent)
    sys.stdout.write("".join(c if c.isprintable() or c == "\n" else _escaped(c) for c in text) + "\n")


def _escaped(character: str) -> str:
    return json.dumps(character)[1:-1]


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]], empty: str) -> None:
    """`empty` is said where there is no row."""
    table = Table(*columns, box=None, pad_edge=False, header_style="bold")
    count = 0
    for row in rows:
        table.add_row(*(one_line(cell) for cell in row))
        count += 1
    console.print(table if count else empty)


def print_fields(fields: Iterable[tuple[str, str]]) -> None:
    table = Table.grid(padding=(0, 2))
    for name, value in fields:
        table.add_row(Text(visible(name), "bold"), visible(value))
    console.print(table)


def visible(text: str) -> str:
    """Mail comes from strangers: nothing in it may steer the terminal."""
    return "".join(c if c.isprintable() or c in "\n\t" else "\ufffd" for c in text.replace("\r\n", "\n"))


def one_line(text: str) -> str:
    """`visible`, where a line of its own would look like a word of ours."""
    return visible(text).replace("\n", " ").replace("\t", " ")


def local_time(iso: str | None) -> str:
    return datetime.fromisoformat(iso).astimezone().strftime("%Y-%m-%d %H:%M") if iso else "-"
