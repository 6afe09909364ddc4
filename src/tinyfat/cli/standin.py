"""`tinyfat standin`: servers of ours that behave as a vendor's documentation says, for trials and for tests."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING, Annotated

import typer

from tinyfat.cli.client import CommandFailed, WrongUse
from tinyfat.listen_address import address

if TYPE_CHECKING:
    from starlette.types import ASGIApp

app = typer.Typer(no_args_is_help=True, help="Stand-ins for vendors: behave as documented, lie on request.")

_Listen = Annotated[str, typer.Option(help="ADDRESS:PORT of the API.")]
_Token = Annotated[str, typer.Option(envvar="TINYFAT_STANDIN_TOKEN", help="What clients must say; empty: any will do.")]


@app.callback()
def standin() -> None:
    """One stand-in alone."""


@app.command()
def hetzner(
    listen: _Listen = "127.0.0.1:8041",
    token: _Token = "",
    lie: Annotated[list[str] | None, typer.Option(help="NAME[:PART][=TIMES]; may be given again.")] = None,
    seed: Annotated[int, typer.Option(help="Of the lies.")] = 0,
    action_seconds: Annotated[float, typer.Option(help="How long an action takes at the least.")] = 0.5,
    requests_per_hour: Annotated[int, typer.Option(min=1, help="The rate limit.")] = 3600,
) -> None:
    """The Hetzner Cloud API. Its control is under /_standin: truth, lies, clock, calls."""
    from tinyfat.standins.hetzner.cloud import Cloud, Options
    from tinyfat.standins.hetzner.lies import Lies, read_lie
    from tinyfat.standins.hetzner.server import Standin, hetzner_app

    try:
        lies = Lies([read_lie(text) for text in lie or []], seed)
    except ValueError as error:
        raise WrongUse(str(error)) from None
    cloud = Cloud(options=Options(action_seconds=action_seconds), lies=lies)
    asyncio.run(_serve(hetzner_app(Standin(cloud, token, requests_per_hour)), listen, "/v1"))


async def _serve(app: ASGIApp, listen: str, path: str) -> None:
    """Until SIGINT or SIGTERM."""
    from tinyfat.standins.serving import served

    try:
        wanted = address(listen)
    except ValueError as error:
        raise WrongUse(f"--listen: {error}") from None
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    try:
        async with served(app, wanted.host, wanted.port) as url:
            typer.echo(f"api        {url}{path}")
            await stop.wait()
    except OSError as error:
        raise CommandFailed(f"{wanted} cannot be listened on: {error.strerror or error}.") from None
