"""`tinyfat up`: everything in one process, for one machine, until it is told to stop."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
import uvloop
from fastapi import FastAPI

from tinyfat.api.app import make_app
from tinyfat.api.box_link import BoxLinks
from tinyfat.cli.client import CommandFailed
from tinyfat.cli.home import Home, HomeRefused, Running
from tinyfat.cli.listening import ListenFailed, bound, url_of
from tinyfat.domain.link import FRAME_BYTES_MAX
from tinyfat.ports.ledger import LedgerError
from tinyfat.relay_wiring import Relay, spare_the_collector
from tinyfat.settings import Address, Settings
from tinyfat.wiring import EmbeddedPostgres, PostgresRefused, World, embedded_postgres

HTTP_SHUTDOWN_SECONDS_MAX = 3
POSTGRES_LOOK_SECONDS = 1.0

log = logging.getLogger(__name__)


class UpFailed(Exception):
    """The control plane did not start."""


async def up(settings: Settings) -> None:
    """Raises HomeRefused, UpFailed, and what the store raises, before anything is accepted."""
    home = Home(settings.home)
    home.make()
    home.take()
    stop = _stop_asked()
    listener = bound(settings.http_listen, "TINYFAT_HTTP_LISTEN")
    relay_listener = _relay_listener(settings)
    http_url = url_of(settings.http_listen.host, listener.getsockname()[1])
    relay_url = url_of(settings.relay_listen.host, relay_listener.getsockname()[1])
    postgres = None if settings.database_url else embedded_postgres(settings)
    began = time.monotonic()
    if postgres is not None:
        await postgres.start()
        say(f"postgres   embedded, ready after {time.monotonic() - began:.1f} s")
    database_url = settings.database_url or (postgres.url if postgres else "")
    world = World(settings, database_url, home.secret(), home.host_id(), http_url, relay_url)
    keeping = asyncio.create_task(_keep_postgres(postgres)) if postgres is not None else None
    try:
        await _serve(world, home, (listener, relay_listener), http_url, stop, began)
    finally:
        home.say_stopped()
        if keeping is not None and postgres is not None:
            keeping.cancel()
            await asyncio.gather(keeping, return_exceptions=True)
            await postgres.stop()


def _relay_listener(settings: Settings) -> socket.socket:
    """Where nobody chose an address and another TinyFat has the usual one, any free port: boxes learn it from us."""
    try:
        return bound(settings.relay_listen, "TINYFAT_RELAY_LISTEN")
    except ListenFailed:
        if "relay_listen" in settings.model_fields_set:
            raise
        return bound(Address(settings.relay_listen.host, 0), "TINYFAT_RELAY_LISTEN")


async def _serve(
    world: World,
    home: Home,
    listeners: tuple[socket.socket, socket.socket],
    http_url: str,
    stop: asyncio.Event,
    began: float,
) -> None:
    listener, relay_listener = listeners
    await world.open()
    relay = Relay(world.settings, world.usage, world.byok, world.standin_url)
    await relay.start(relay_listener)
    links = BoxLinks(world.agents, world.records, world.turns, world.runtime_spec)
    server = _Server(_http_config(make_app(world, links, relay, home.operator_token())))
    serving = asyncio.create_task(server.serve(sockets=[listener]), name="http")
    smtp = world.smtp_in()
    try:
        await smtp.start()
    except OSError as error:
        server.should_exit = True
        await serving
        await relay.stop()
        await world.close()
        raise UpFailed(
            f"TINYFAT_SMTP_LISTEN: {world.settings.smtp_listen} cannot be listened on: {error.strerror}."
        ) from error
    world.begin_loops(links.offered, links.sweep, links.respecify)
    smtp_at = Address(world.settings.smtp_listen.host, smtp.port)
    home.say_running(Running(os.getpid(), http_url, str(smtp_at), world.settings.domain))
    relay_url = url_of(world.settings.relay_listen.host, relay_listener.getsockname()[1])
    spare_the_collector()
    _introduce(world, smtp_at, http_url, relay_url, time.monotonic() - began)
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait({stopping, serving}, return_when=asyncio.FIRST_COMPLETED)
    say("stopping: no new mail; the agents' machines end; what is unfinished goes on at the next start")
    await smtp.stop()
    await world.stop_machines()
    await relay.stop()
    server.should_exit = True
    await serving
    await world.close()
    say("stopped")


def say(line: str) -> None:
    print(line, flush=True)


def _introduce(world: World, smtp: Address, http_url: str, relay_url: str, seconds: float) -> None:
    settings = world.settings
    say(f"smtp       {smtp}   mail for NAME@{settings.domain}")
    say(f"http       {http_url}")
    say(f"relay      {relay_url}")
    say(f"model      {world.model.model} ({world.model_source})")
    if settings.smarthost:
        say(f"smarthost  {settings.smarthost.address}")
    else:
        say("smarthost  none: replies wait in the ledger (`tinyfat mail list NAME`) until TINYFAT_SMARTHOST is set")
    say(f"TinyFat is up after {seconds:.1f} s; its home is {settings.home}. Ctrl-C stops it.")


class _Server(uvicorn.Server):
    """Signals are ours to handle: HTTP is the last to go, since the boxes say their last words over it."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _http_config(app: FastAPI) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        lifespan="off",
        ws="websockets-sansio",
        ws_max_size=FRAME_BYTES_MAX,
        ws_per_message_deflate=False,
        timeout_graceful_shutdown=HTTP_SHUTDOWN_SECONDS_MAX,
        server_header=False,
    )


def _stop_asked() -> asyncio.Event:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    return stop


async def _keep_postgres(postgres: EmbeddedPostgres) -> None:
    """Should it die under us, it is started again; everything else waits it out."""
    while True:
        await asyncio.sleep(POSTGRES_LOOK_SECONDS)
        try:
            if postgres.process() is None:
                log.error("the embedded Postgres is gone; starting it again")
                await postgres.start()
        except PostgresRefused:
            log.exception("the embedded Postgres did not start; trying again")


def run(settings: Settings) -> None:
    """Until it is told to stop. Raises CommandFailed with what stood in the way."""
    try:
        uvloop.run(up(settings))
    except (HomeRefused, UpFailed, ListenFailed, PostgresRefused, LedgerError) as error:
        raise CommandFailed(str(error)) from error
