"""`tinyfat image`: the disks that machines are made from."""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Annotated, Any, TypeVar

import typer

from tinyfat import image_builds
from tinyfat.api.image_reception import ImageReception, reception_app
from tinyfat.cli.client import CommandFailed, WrongUse
from tinyfat.cli.home import Home, HomeRefused
from tinyfat.cli.output import local_time, print_json, print_table, visible
from tinyfat.cli.serving_http import http_served
from tinyfat.domain.usage import money
from tinyfat.image_builds import Built, ImageBuilds, ImageFailed, ImageList, Listed
from tinyfat.image_wiring import DRIVERS, ReceptionTerms
from tinyfat.listen_address import Address, address
from tinyfat.settings import Settings, load_settings

app = typer.Typer(no_args_is_help=True, help="The disks that machines are made from.")

_Driver = Annotated[str, typer.Option(help=f"Kind of machine: {', '.join(DRIVERS)}.")]
_Json = Annotated[bool, typer.Option("--json", help="Print one JSON value.")]


@app.command()
def build(
    driver: Annotated[str, typer.Option(help=f"Kind of machine: {', '.join(DRIVERS)}, docker.")] = "nspawn",
    runtime: Annotated[str, typer.Option(help=f"One of {', '.join(image_builds.RUNTIMES)}.")] = "openclaw",
    engine: Annotated[str, typer.Option(help="Of --driver docker: where it is; else TINYFAT_DOCKER_URL.")] = "",
    listen: Annotated[str, typer.Option(help="Of --driver hetzner: HOST:PORT its servers call meanwhile.")] = "",
    url: Annotated[str, typer.Option(help="Of --driver hetzner: https://HOST:PORT as they reach that.")] = "",
    as_json: _Json = False,
) -> None:
    """Bake Debian, the box and a runtime into one image, and try it: a machine of it must answer a question."""
    _known("--driver", driver, (*DRIVERS, "docker"))
    _known("--runtime", runtime, image_builds.RUNTIMES)
    began = time.monotonic()
    say = (lambda line: None) if as_json else (lambda line: print(visible(line), file=sys.stderr, flush=True))
    settings = load_settings()
    builds = ImageBuilds(settings, served_reception, say)
    try:
        made = asyncio.run(_build(builds, settings, driver, runtime, engine, _address(listen), _url(url)))
    except ImageFailed as error:
        raise CommandFailed(str(error)) from error
    except asyncio.CancelledError as error:
        raise CommandFailed("Interrupted: its machines were ended, and no image was made.") from error
    if as_json:
        print_json({"name": made.name, "bytes": made.bytes})
    else:
        size = f"{made.bytes // 2**20} MB  " if made.bytes else ""
        print(f"{made.name}  {size}{time.monotonic() - began:.1f} s")


async def _build(
    builds: ImageBuilds, settings: Settings, driver: str, runtime: str, engine: str, listen: Address | None, url: str
) -> Built:
    """SIGTERM, as Ctrl-C, ends it in order: machines cost money."""
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    match driver:
        case "docker":
            return await builds.in_engine(engine or settings.docker_url, runtime)
        case "hetzner":
            return await builds.at_hetzner(runtime, _secret(settings), listen, url)
        case _:
            return await builds.on_this_host(driver, runtime)


@asynccontextmanager
async def served_reception(terms: ReceptionTerms) -> AsyncIterator[ImageReception]:
    reception = ImageReception(terms)
    tls = terms.tls.context if terms.tls else None
    async with http_served("reception", reception_app(reception, terms), terms.listener, tls):
        yield reception


@app.command()
def freeze(
    name: Annotated[str, typer.Argument(help="Of --driver local_vm: tinyfat image list has it.")],
) -> None:
    """Boot a virtual machine of this image once and freeze it: those made of it later are clones, and need no boot."""
    began = time.monotonic()
    try:
        asyncio.run(image_builds.freeze(load_settings(), name, lambda line: print(visible(line), file=sys.stderr)))
    except ImageFailed as error:
        raise CommandFailed(str(error)) from error
    print(f"{name} has a machine to clone  {time.monotonic() - began:.1f} s")


@app.command("list")
def list_images(driver: _Driver = "nspawn", as_json: _Json = False) -> None:
    """What there is, the newest first."""
    _known("--driver", driver, DRIVERS)
    found = _asked(_images(driver).all())
    if as_json:
        print_json(
            [
                {"name": i.name, "bytes": i.bytes, "created_at": i.created_at.isoformat(), "parent": i.parent}
                | {"monthly_nanodollars": i.monthly_nanodollars}
                for i in found
            ]
        )
        return
    rows = [
        (i.name, f"{i.bytes // 2**20} MB", local_time(i.created_at.isoformat()), _last_word(i, driver)) for i in found
    ]
    last = "a month" if driver == "hetzner" else "lies upon"
    print_table(("image", "size", "made", last), rows, "There is no image yet: tinyfat image build makes one.")


@app.command()
def prune(
    driver: _Driver = "nspawn",
    keep: Annotated[int, typer.Option(min=0, help="How many of the newest stay.")] = 2,
) -> None:
    """Remove old images; what a machine is made of stays."""
    _known("--driver", driver, DRIVERS)
    removed, stayed = _asked(_images(driver).prune(keep))
    for name in removed:
        print(f"removed {name}")
    for why in stayed:
        print(visible(why))
    if not removed:
        print("Nothing was removed.")


def _last_word(image: Listed, driver: str) -> str:
    return money(image.monthly_nanodollars) if driver == "hetzner" else image.parent


def _images(driver: str) -> ImageList:
    settings = load_settings()
    return ImageList(settings, driver, lambda: _secret(settings))


T = TypeVar("T")


def _asked(asking: Coroutine[Any, Any, T]) -> T:
    try:
        return asyncio.run(asking)
    except ImageFailed as error:
        raise CommandFailed(str(error)) from error


def _secret(settings: Settings) -> bytes:
    home = Home(settings.home)
    try:
        home.make()
    except HomeRefused as error:
        raise CommandFailed(str(error)) from error
    return home.secret()


def _address(text: str) -> Address | None:
    try:
        return address(text) if text else None
    except ValueError as error:
        raise WrongUse(f"--listen: {error}") from None


def _url(text: str) -> str:
    if text and not text.startswith("https://"):
        raise WrongUse(f"--url: {text!r} is not https://HOST:PORT")
    return text.rstrip("/")


def _known(option: str, value: str, values: tuple[str, ...]) -> None:
    if value not in values:
        raise WrongUse(f"{option} is one of {', '.join(values)}, not {value}.")
