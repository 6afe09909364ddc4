"""A command without a process of its own: cheaper. What a process adds is shown by the few that have one."""

from __future__ import annotations

import contextlib
import gc
import io
import os
import warnings
from dataclasses import dataclass
from unittest import mock

from tests.running import TinyFat
from tinyfat.cli.main import main


@dataclass(frozen=True)
class Ended:
    code: int
    out: str
    err: str


def command(tinyfat: TinyFat, *arguments: str) -> Ended:
    """`tinyfat ARGUMENTS` in the environment of this TinyFat."""
    out, err, code = io.StringIO(), io.StringIO(), 0
    with (
        mock.patch.dict(os.environ, tinyfat.environment, clear=True),
        mock.patch("sys.argv", ["tinyfat", *arguments]),
        contextlib.chdir(tinyfat.home.parent),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore", ResourceWarning)  # a command leaves its connection to the end of its process
        try:
            main()
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else 1 if ended.code else 0
        gc.collect()
    return Ended(code, out.getvalue(), err.getvalue())
