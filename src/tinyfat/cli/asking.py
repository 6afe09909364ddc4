"""Before something is lost for good, a person is asked."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from tinyfat.cli.client import CommandFailed, WrongUse
from tinyfat.cli.output import errors

ANSWER_CHARS_MAX = 100
YES = ("y", "yes")

Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


def ask_first(question: str, yes: bool) -> None:
    """Returns where the person agrees; `yes`: they did already. Asks on standard error and reads standard input, so
    that what goes to standard output may be piped. Raises WrongUse where standard input is no terminal, CommandFailed
    where the answer is anything but y: then nothing is to be done."""
    if yes:
        return
    if not _is_terminal():
        nobody = "Nobody can be asked: standard input is no terminal. Say --yes where you mean it."
        raise WrongUse(f"{question}\n{nobody} {_NOTHING}")
    if not agrees(question):
        raise CommandFailed(_NOTHING)


def agrees(question: str) -> bool:
    """Whether the person at the terminal of standard input says y; no, where there is nobody."""
    if not _is_terminal():
        return False
    errors.print(f"{question} [y/N]: ", end="")
    try:
        answer = sys.stdin.readline(ANSWER_CHARS_MAX)
    except (KeyboardInterrupt, UnicodeDecodeError):
        answer = ""
    if not answer.endswith("\n"):
        errors.print()
    return answer.strip().lower() in YES


def _is_terminal() -> bool:
    return sys.stdin is not None and sys.stdin.isatty()  # None: it was closed


_NOTHING = "Nothing was done."
