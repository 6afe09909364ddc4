"""Draws docs/demo.svg from what `tinyfat demo` prints on standard input; `make picture` runs both.

Ports, ids and times are made the same each time, so that a new picture differs only where the demo does.
"""

from __future__ import annotations

import io
import re
import sys
from pathlib import Path

from rich.console import Console
from rich.rule import Rule
from rich.terminal_theme import MONOKAI
from rich.text import Text

COLUMNS = 96
# Headers, quotes, and what is said of the way there.
LEFT_OUT = re.compile(r"(From|To|Message-ID|In-Reply-To):|>|On .* wrote:$|  (?!\.venv)|Robin$")
SAME = (
    (re.compile(r", HTTP on .*|(?<=ready): \d+\.\d s| \d+\.\d s in all\."), ""),
    (re.compile(r"(?<=127.0.0.1):\d+"), ":2525"),
)
RULE = re.compile(r"(.*?) ?─{10,}$")
FONT_FACE = re.compile(r"@font-face \{.*?\}\s*", re.DOTALL)  # fetched from elsewhere; every system has a monospace


def draw(transcript: str) -> str:
    """The SVG."""
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True, highlight=False)
    console.print(Text("$ make demo", "bold green"))
    blank = False
    for line in transcript.splitlines():
        if LEFT_OUT.match(line) or (blank and not line):
            continue
        blank = not line
        for pattern, word in SAME:
            line = pattern.sub(word, line)
        rule = RULE.fullmatch(line)
        console.print(Rule(rule[1], align="left") if rule else Text(line))
    svg = console.export_svg(title="TinyFat", theme=MONOKAI, unique_id="demo")
    return FONT_FACE.sub("", svg).replace("<!-- Generated with Rich https://www.textualize.io -->", "")


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(draw(sys.stdin.read()), encoding="utf-8")
