"""`tinyfat serve`: one part of TinyFat, alone in a process."""

from __future__ import annotations

import asyncio
import signal

import typer

from tinyfat.cli.client import CommandFailed
from tinyfat.cli.unknown_settings import say_unknown_settings
from tinyfat.settings import load_settings

app = typer.Typer(no_args_is_help=True, help="Run one part of TinyFat alone; `tinyfat up` runs all of them.")


@app.callback()
def serve() -> None:
    """One part alone."""


@app.command()
def relay() -> None:
    """The relay on TINYFAT_RELAY_LISTEN, over TINYFAT_DATABASE_URL (else the database of a running `tinyfat up`)."""
    import uvloop

    from tinyfat.cli.logs import set_up_log
    from tinyfat.listen_address import ListenFailed
    from tinyfat.ports.ledger import LedgerError

    settings = load_settings()
    set_up_log(settings.log)
    say_unknown_settings()
    try:
        uvloop.run(_relay())
    except (ListenFailed, LedgerError) as error:
        raise CommandFailed(str(error)) from error


async def _relay() -> None:
    from tinyfat.engine.connections import raise_file_limit
    from tinyfat.listen_address import bound, url_of
    from tinyfat.relay_wiring import RelayAlone, embedded_url, spare_the_collector

    raise_file_limit()
    settings = load_settings()
    listener = bound(settings.relay_listen, "TINYFAT_RELAY_LISTEN")
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    standin_url = f"{url_of(settings.http_listen.host, settings.http_listen.port)}/standin/model/v1"
    alone = RelayAlone(settings, settings.database_url or embedded_url(settings), standin_url)
    await alone.start(listener)
    spare_the_collector()
    print(f"relay      {url_of(settings.relay_listen.host, listener.getsockname()[1])}", flush=True)
    await stop.wait()
    await alone.stop()
