"""A command without a process of its own: cheaper. What a process adds is shown by the few that have one."""

from __future__ import annotations

import contextlib
import io
import os
from dataclasses import dataclass
from typing import Any
from unittest import mock

import httpx2

from tests.running import TinyFat
from tinyfat.cli.main import main

HTTP_CLIENT = httpx2.Client


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
        contextlib.ExitStack() as connections,  # a command leaves its own to the end of its process
    ):

        def client(**arguments: Any) -> httpx2.Client:
            return connections.enter_context(contextlib.closing(HTTP_CLIENT(**arguments)))

        with mock.patch.object(httpx2, "Client", client):
            try:
                main()
            except SystemExit as ended:
                code = ended.code if isinstance(ended.code, int) else 1 if ended.code else 0
    return Ended(code, out.getvalue(), err.getvalue())
