"""`tinyfat up`: everything in one process, for one machine, until it is told to stop."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import uvloop

from tinyfat import __version__
from tinyfat.api.app import make_app
from tinyfat.api.box_enrol import make_box_app
from tinyfat.api.box_link import BoxLinks
from tinyfat.api.box_state import serve_states
from tinyfat.cli.client import CommandFailed
from tinyfat.cli.home import Home, HomeRefused, Running
from tinyfat.cli.serving_http import http_served
from tinyfat.dns_server.serving import dns_served
from tinyfat.domain.machines import PROCESS
from tinyfat.engine.connections import raise_file_limit
from tinyfat.listen_address import Address, ListenFailed, bound, bound_at, url_of
from tinyfat.ports.ledger import LedgerError
from tinyfat.relay_wiring import Relay, spare_the_collector
from tinyfat.server_wiring import ServerSide
from tinyfat.settings import Settings
from tinyfat.wiring import EmbeddedPostgres, PostgresRefused, World, embedded_postgres

POSTGRES_LOOK_SECONDS = 1.0
END_SECONDS_MAX = 180.0  # of an orderly end; machines of this host have 120 of them
LEFT_SECONDS_MAX = 10.0  # for tasks that are told to end
AGAIN_SECONDS = 1.0  # until one that did not is told again
LEFT_CHARS = 2000

log = logging.getLogger(__name__)


class UpFailed(Exception):
    """The control plane did not start, or did not end in time."""


@dataclass(frozen=True, slots=True)
class Listeners:
    http: socket.socket
    http_url: str
    relay: socket.socket
    relay_url: str


async def up(settings: Settings, stop: asyncio.Event) -> None:
    """Until `stop`. Raises HomeRefused, UpFailed, and what the store raises, before anything is accepted."""
    raise_file_limit()
    home = Home(settings.home)
    home.make()
    home.take()
    say(f"TinyFat {__version__} starts on {settings.home}")
    await _look_at_ports(settings)
    listener = bound(settings.http_listen, "TINYFAT_HTTP_LISTEN")
    relay_listener = _relay_listener(settings)
    http_url = url_of(settings.http_listen.host, listener.getsockname()[1])
    relay_url = url_of(settings.relay_listen.host, relay_listener.getsockname()[1])
    began = time.monotonic()
    async with AsyncExitStack() as stack:
        database_url = settings.database_url
        if database_url is None:
            database_url = await stack.enter_async_context(_postgres(settings))
        stack.callback(home.say_stopped)
        side = ServerSide(settings, home.secret())
        stack.push_async_callback(side.close)
        await side.open()
        world = World(settings, database_url, home.secret(), home.host_id(), http_url, relay_url, side)
        await _serve(stack, world, home, Listeners(listener, http_url, relay_listener, relay_url), stop, began)
    say("stopped")


async def _look_at_ports(settings: Settings) -> None:
    """What cannot be listened on is said before anything is made. Raises UpFailed."""
    wanted = {"smtp_listen": settings.smtp_listen, "box_listen": settings.box_listen}
    for name, listen in wanted.items():
        if listen is None:
            continue
        try:
            for each in await bound_at(listen.host, listen.port):
                each.close()
        except OSError as error:
            raise UpFailed(f"TINYFAT_{name.upper()}: {listen} cannot be listened on: {error.strerror}.") from error


def _relay_listener(settings: Settings) -> socket.socket:
    """Where nobody chose an address and another TinyFat has the usual one, any free port: boxes learn it from us."""
    try:
        return bound(settings.relay_listen, "TINYFAT_RELAY_LISTEN")
    except ListenFailed:
        if "relay_listen" in settings.model_fields_set:
            raise
        return bound(Address(settings.relay_listen.host, 0), "TINYFAT_RELAY_LISTEN")


async def _serve(
    stack: AsyncExitStack, world: World, home: Home, listeners: Listeners, stop: asyncio.Event, began: float
) -> None:
    """What is begun last ends first; HTTP nearly last, since the boxes say their last words over it."""
    await world.open()
    stack.push_async_callback(world.close)
    relay = Relay(world.settings, world.usage, world.byok, world.standin_url)
    links = BoxLinks(world.agents, world.records, world.turns, world.runtime_spec, world.fleet.moves)
    app = make_app(world, links, relay, home.operator_token())
    serve_states(app, world.records, world.fleet.moves, world.fleet.move_files)  # the boxes of this host call here
    serving = await stack.enter_async_context(http_served("http", app, listeners.http))
    await relay.start(listeners.relay)
    stack.push_async_callback(relay.stop)
    await stack.enter_async_context(_servers(world, links, relay))
    smtp = world.smtp_in()
    try:
        await smtp.start()
    except OSError as error:
        raise UpFailed(
            f"TINYFAT_SMTP_LISTEN: {world.settings.smtp_listen} cannot be listened on: {error.strerror}."
        ) from error
    world.close_ports(smtp.port)
    world.begin_loops(links.offered, links.sweep, links.respecify)
    smtp_at = Address(world.settings.smtp_listen.host, smtp.port)
    home.say_running(Running(os.getpid(), listeners.http_url, str(smtp_at), world.settings.domain))
    spare_the_collector()
    await _introduce(world, smtp_at, listeners, time.monotonic() - began)
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait({stopping, serving}, return_when=asyncio.FIRST_COMPLETED)
    say("stopping: no new mail; the agents' machines on this host end; what is unfinished goes on at the next start")
    await smtp.stop()
    await world.stop_machines()


@asynccontextmanager
async def _servers(world: World, links: BoxLinks, relay: Relay) -> AsyncIterator[None]:
    """The way in for the boxes of servers, and our own zone, where there are such."""
    side, settings = world.side, world.settings
    async with AsyncExitStack() as stack:
        if side.local_dns is not None:
            listen = settings.dns_listen
            try:
                await stack.enter_async_context(dns_served(side.zones, listen.host, listen.port))
            except OSError as error:
                raise UpFailed(f"TINYFAT_DNS_LISTEN: {listen} cannot be listened on: {error.strerror}.") from error
        if side.door is not None:
            app = make_box_app(links, world.enrolments, world.identities, side.archives, world.reading)
            serve_states(app, world.records, world.fleet.moves, world.fleet.move_files)
            await stack.enter_async_context(http_served("boxes", app, side.door.box_listener, side.door.tls.context))
            await relay.listen(side.door.relay_listener, side.door.tls.context)
            keeping = asyncio.create_task(side.door.keep_certificate(), name="certificate")
            stack.callback(keeping.cancel)
        yield


def say(line: str) -> None:
    print(line, flush=True)


async def _introduce(world: World, smtp: Address, listeners: Listeners, seconds: float) -> None:
    settings, door = world.settings, world.side.door
    say(f"smtp       {smtp}   mail for NAME@{settings.domain}")
    say(f"http       {listeners.http_url}")
    say(f"relay      {listeners.relay_url}")
    if door is not None:
        say(f"servers    {settings.machine}, their boxes call {door.control_url}")
    if settings.dns != "none":
        at = f", answered at {settings.dns_listen}" if settings.dns == "local" else ""
        say(f"names      {settings.domain} ({settings.dns}{at})")
    if settings.machine == PROCESS:
        say(f"machines   {PROCESS}: an agent runs {await world.machines.sandbox_words()}")
    if owners := await world.owners_without_a_wall():
        say(f"           So run agents of {', '.join(owners)}, and can reach each other: see `tinyfat doctor`.")
    say(f"model      {world.model.model} ({world.model_source})")
    if settings.smarthost:
        say(f"smarthost  {settings.smarthost.address}")
    else:
        say("smarthost  none: replies wait in the ledger (`tinyfat mail list NAME`) until TINYFAT_SMARTHOST is set")
    say(f"TinyFat is up after {seconds:.1f} s; its home is {settings.home}. Ctrl-C stops it.")


def _stop_asked() -> asyncio.Event:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    return stop


@asynccontextmanager
async def _postgres(settings: Settings) -> AsyncIterator[str]:
    """The embedded one's address, for as long as it is wanted."""
    postgres = embedded_postgres(settings)
    began = time.monotonic()
    say("postgres   starting; the first time it is made (some seconds)")
    await postgres.start()
    say(f"postgres   embedded, ready after {time.monotonic() - began:.1f} s")
    keeping = asyncio.create_task(_keep_postgres(postgres), name="postgres")
    try:
        yield postgres.url
    finally:
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)
        await postgres.stop()


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
        uvloop.run(_up_to_its_end(settings))
    except (HomeRefused, UpFailed, ListenFailed, PostgresRefused, LedgerError) as error:
        raise CommandFailed(str(error)) from error


async def _up_to_its_end(settings: Settings) -> None:
    """All is closed and written when `up` returns. What does not end then, or not in time after it was told to, is
    named and left behind, since the loop would wait for it for ever."""
    stop = _stop_asked()
    going = asyncio.create_task(up(settings, stop), name="up")
    asked = asyncio.create_task(stop.wait(), name="to be told to stop")
    await asyncio.wait({going, asked}, return_when=asyncio.FIRST_COMPLETED)
    await asyncio.wait({going}, timeout=END_SECONDS_MAX)
    late = not going.done()
    if late:
        log.error("it did not end within %.0f s; what is still to be closed is not waited for", END_SECONDS_MAX)
        going.cancel()  # once: it may have more to close
        await asyncio.wait({going}, timeout=LEFT_SECONDS_MAX)
    if left := await _others_ended():
        failed = None if late or going.cancelled() else going.exception()
        log.error("still running at the end, and left behind: %s", "; ".join(sorted(map(repr, left)))[:LEFT_CHARS])
        if failed is not None:
            log.error("%s", failed)
        logging.shutdown()
        os._exit(1 if late or failed is not None else 0)
    if late:
        raise UpFailed(f"TinyFat did not end within {END_SECONDS_MAX:.0f} s; its log says what it waited for.")
    await going


async def _others_ended() -> set[asyncio.Task[Any]]:
    """Every task but this one, told to end; those that did not. Told again and again: asyncio.wait_for, which libraries
    use, loses a cancellation now and then before Python 3.12 (python/cpython#86296)."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + LEFT_SECONDS_MAX
    while (left := asyncio.all_tasks() - {asyncio.current_task()}) and loop.time() < deadline:
        for task in left:
            task.cancel()
        await asyncio.wait(left, timeout=AGAIN_SECONDS)
    return left
