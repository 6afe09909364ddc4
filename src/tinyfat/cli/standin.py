"""`tinyfat standin`: servers of ours that behave as a vendor's documentation says, for trials and for tests."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tinyfat.cli.client import CommandFailed, WrongUse
from tinyfat.listen_address import Address, address

if TYPE_CHECKING:
    from starlette.types import ASGIApp

    from tinyfat.dns_server.serving import Zones
    from tinyfat.machine_hosts.machine_host import MachineHost
    from tinyfat.standins.hetzner.cloud import Cloud
    from tinyfat.standins.lies import Lies

MIB = 1024**2

app = typer.Typer(no_args_is_help=True, help="Stand-ins for vendors: behave as documented, lie on request.")


class Backend(StrEnum):
    MEMORY = "memory"
    NSPAWN = "nspawn"
    LOCAL_VM = "local_vm"


_Listen = Annotated[str, typer.Option(help="ADDRESS:PORT of the API.")]
_Token = Annotated[str, typer.Option(envvar="TINYFAT_STANDIN_TOKEN", help="What clients must say; empty: any will do.")]
_Lie = Annotated[list[str] | None, typer.Option(help="NAME[:PART][=TIMES]; may be given again.")]
_Seed = Annotated[int, typer.Option(help="Of the lies.")]
_DnsListen = Annotated[str, typer.Option(help="ADDRESS:PORT of its name server; empty: none.")]
_DnsSeconds = Annotated[float, typer.Option(help="From a changed record to its being answered.")]


@app.callback()
def standin() -> None:
    """One stand-in alone."""


@app.command()
def hetzner(
    listen: _Listen = "127.0.0.1:8041",
    token: _Token = "",
    lie: _Lie = None,
    seed: _Seed = 0,
    action_seconds: Annotated[float, typer.Option(help="How long an action takes at the least.")] = 0.5,
    backend: Annotated[Backend, typer.Option(help="What a server is.")] = Backend.MEMORY,
    state: Annotated[Path | None, typer.Option(help="Folder it is written down in, machines included.")] = None,
    image: Annotated[str, typer.Option(help="The host's image for every system image; empty: of its name.")] = "",
    memory_mb: Annotated[int, typer.Option(min=0, help="Of a real machine at most; 0: as its type says.")] = 0,
    zone: Annotated[list[str] | None, typer.Option(help="A DNS zone it has; may be given again.")] = None,
    requests_per_hour: Annotated[int, typer.Option(min=1, help="The rate limit.")] = 3600,
    dns_listen: _DnsListen = "",
    dns_seconds: _DnsSeconds = 0.0,
) -> None:
    """The Hetzner Cloud API. Its control is under /_standin: truth, lies, clock, calls."""
    from tinyfat.standins.hetzner.cloud import Cloud, Options
    from tinyfat.standins.hetzner.server import Standin, hetzner_app
    from tinyfat.standins.hetzner.zones import add_zone

    lies = _lies(lie, seed, "servers")
    options = Options(
        action_seconds=action_seconds, dns_seconds=dns_seconds, memory_bytes_max=memory_mb * MIB, host_image=image
    )
    cloud = Cloud(options=options, lies=lies, host=_host(backend, state))
    save = _remembering(cloud, state) if state else None
    try:
        for name in zone or []:
            add_zone(cloud, name)
    except ValueError as error:
        raise WrongUse(f"--zone: {error}") from None
    app = hetzner_app(Standin(cloud, token, requests_per_hour, save))
    names = (cloud.published.zones, _address("--dns-listen", dns_listen)) if dns_listen else None
    asyncio.run(_serve(app, _address("--listen", listen), "/v1", names))


def _host(backend: Backend, state: Path | None) -> MachineHost | None:
    """None: in memory."""
    if backend is Backend.MEMORY:
        return None
    if state is None:
        raise WrongUse("--state FOLDER: real machines need one, so that they are found again.")
    from tinyfat.machine_hosts.nspawn import NspawnHost
    from tinyfat.machine_hosts.qemu import QemuHost
    from tinyfat.settings import load_settings

    images = load_settings().cache / "images" / backend
    kind = NspawnHost if backend is Backend.NSPAWN else QemuHost
    return kind(state / "machines", images, lambda: datetime.now(UTC))


def _remembering(cloud: Cloud, state: Path) -> Callable[[], None]:
    from tinyfat.standins.hetzner.state import StateUnreadable, restore, save

    try:
        restore(cloud, state)
    except StateUnreadable as error:
        raise CommandFailed(str(error)) from None
    return partial(save, cloud, state)


@app.command()
def cloudflare(
    listen: _Listen = "127.0.0.1:8042",
    token: _Token = "",
    zone: Annotated[list[str] | None, typer.Option(help="A zone it has; may be given again.")] = None,
    lie: _Lie = None,
    seed: _Seed = 0,
    requests_per_window: Annotated[int, typer.Option(min=1, help="The limit, in five minutes.")] = 1200,
    dns_listen: _DnsListen = "",
    dns_seconds: _DnsSeconds = 0.0,
) -> None:
    """Cloudflare's API of DNS records. Its control is under /_standin: truth, lies, clock."""
    from tinyfat.standins.cloudflare.server import Account, cloudflare_app

    lies = _lies(lie, seed, "dns_records")
    account = Account(lies=lies, token=token, requests_per_window=requests_per_window, dns_seconds=dns_seconds)
    for name in zone or []:
        account.add_zone(name)
    names = (account.published.zones, _address("--dns-listen", dns_listen)) if dns_listen else None
    asyncio.run(_serve(cloudflare_app(account), _address("--listen", listen), "/client/v4", names))


def _lies(texts: list[str] | None, seed: int, chief: str) -> Lies:
    from tinyfat.standins.lies import Lies, read_lie

    try:
        return Lies([read_lie(text, chief) for text in texts or []], seed)
    except ValueError as error:
        raise WrongUse(f"--lie: {error}") from None


def _address(option: str, text: str) -> Address:
    try:
        return address(text)
    except ValueError as error:
        raise WrongUse(f"{option}: {error}") from None


async def _serve(app: ASGIApp, listen: Address, path: str, names: tuple[Zones, Address] | None = None) -> None:
    """Until SIGINT or SIGTERM."""
    from tinyfat.dns_server.serving import dns_served
    from tinyfat.standins.serving import served

    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    try:
        async with AsyncExitStack() as stack:
            if names is not None:
                port = await stack.enter_async_context(dns_served(names[0], names[1].host, names[1].port))
                typer.echo(f"dns        {Address(names[1].host, port)}")
            url = await stack.enter_async_context(served(app, listen.host, listen.port))
            typer.echo(f"api        {url}{path}")
            await stop.wait()
    except OSError as error:
        raise CommandFailed(f"The stand-in cannot listen at {listen}: {error.strerror or error}.") from None
