"""`tinyfat image`: the disks that machines of this host are made from."""

from __future__ import annotations

import asyncio
import sys
import time
from typing import Annotated

import typer

from tinyfat import image_wiring
from tinyfat.cli.client import CommandFailed, WrongUse
from tinyfat.cli.output import local_time, print_json, print_table, visible
from tinyfat.settings import load_settings

app = typer.Typer(no_args_is_help=True, help="The disks that machines are made from.")

_Driver = Annotated[str, typer.Option(help=f"Kind of machine: {', '.join(image_wiring.DRIVERS)}.")]
_Json = Annotated[bool, typer.Option("--json", help="Print one JSON value.")]


@app.command()
def build(
    driver: _Driver = "nspawn",
    runtime: Annotated[str, typer.Option(help=f"One of {', '.join(image_wiring.RUNTIMES)}.")] = "openclaw",
    engine: Annotated[str, typer.Option(help="Of --driver docker: where it is; else TINYFAT_DOCKER_URL.")] = "",
    as_json: _Json = False,
) -> None:
    """Bake Debian, the box and a runtime into one image; what is there already is not made again."""
    _known("--driver", driver, (*image_wiring.DRIVERS, "docker"))
    _known("--runtime", runtime, image_wiring.RUNTIMES)
    began = time.monotonic()
    say = (lambda line: None) if as_json else (lambda line: print(visible(line), file=sys.stderr, flush=True))
    try:
        if driver == "docker":
            settings = load_settings()
            name = asyncio.run(image_wiring.build_for_engine(settings, engine or settings.docker_url, runtime, say))
            print_json({"name": name}) if as_json else print(f"{name}  {time.monotonic() - began:.1f} s")
            return
        made = asyncio.run(image_wiring.build(load_settings(), driver, runtime, say))
    except image_wiring.ImageFailed as error:
        raise CommandFailed(str(error)) from error
    if as_json:
        print_json({"name": made.name, "bytes": made.bytes, "created_at": made.created_at.isoformat()})
    else:
        print(f"{made.name}  {made.bytes // 2**20} MB  {time.monotonic() - began:.1f} s")


@app.command("list")
def list_images(driver: _Driver = "nspawn", as_json: _Json = False) -> None:
    """What there is, the newest first."""
    _known("--driver", driver, image_wiring.DRIVERS)
    try:
        found = image_wiring.listed(load_settings(), driver)
    except image_wiring.ImageFailed as error:
        raise CommandFailed(str(error)) from error
    if as_json:
        print_json(
            [
                {"name": i.name, "bytes": i.bytes, "created_at": i.created_at.isoformat(), "parent": i.parent}
                for i in found
            ]
        )
        return
    rows = [(i.name, f"{i.bytes // 2**20} MB", local_time(i.created_at.isoformat()), i.parent) for i in found]
    print_table(("image", "size", "made", "lies upon"), rows, "There is no image yet: tinyfat image build makes one.")


@app.command()
def prune(
    driver: _Driver = "nspawn",
    keep: Annotated[int, typer.Option(min=0, help="How many of the newest stay.")] = 2,
) -> None:
    """Remove old images; what a machine is made of stays."""
    _known("--driver", driver, image_wiring.DRIVERS)
    try:
        removed, stayed = image_wiring.prune(load_settings(), driver, keep)
    except image_wiring.ImageFailed as error:
        raise CommandFailed(str(error)) from error
    for name in removed:
        print(f"removed {name}")
    for why in stayed:
        print(visible(why))
    if not removed:
        print("Nothing was removed.")


def _known(option: str, value: str, values: tuple[str, ...]) -> None:
    if value not in values:
        raise WrongUse(f"{option} is one of {', '.join(values)}, not {value}.")
