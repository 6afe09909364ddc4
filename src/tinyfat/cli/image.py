"""`tinyfat image`: the disks that machines are made from."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Annotated

import typer

from tinyfat.cli.asking import Yes, ask_first
from tinyfat.cli.client import WrongUse
from tinyfat.cli.output import local_time, print_json, print_table, visible
from tinyfat.domain.agents import RuntimeKind
from tinyfat.domain.usage import money
from tinyfat.listen_address import Address, address
from tinyfat.server_settings import SERVER_KINDS
from tinyfat.settings import load_settings

if TYPE_CHECKING:
    from tinyfat.image_builds import Listed

app = typer.Typer(no_args_is_help=True, help="The disks that machines are made from.")

_Driver = Annotated[str, typer.Option(help=f"Kind of machine: {', '.join(SERVER_KINDS)}.")]
_Json = Annotated[bool, typer.Option("--json", help="Print one JSON value.")]


@app.command()
def build(
    driver: Annotated[str, typer.Option(help=f"Kind of machine: {', '.join(SERVER_KINDS)}, docker.")] = "nspawn",
    runtime: Annotated[str, typer.Option(help=f"One of {', '.join(RuntimeKind)}.")] = "openclaw",
    engine: Annotated[str, typer.Option(help="Of --driver docker: where it is; else TINYFAT_DOCKER_URL.")] = "",
    listen: Annotated[str, typer.Option(help="Of --driver hetzner: HOST:PORT its servers call meanwhile.")] = "",
    url: Annotated[str, typer.Option(help="Of --driver hetzner: https://HOST:PORT as they reach that.")] = "",
    as_json: _Json = False,
) -> None:
    """Bake Debian, the box and a runtime into one image, and try it: a machine of it must answer a question."""
    from tinyfat.cli import imaging

    _known("--driver", driver, (*SERVER_KINDS, "docker"))
    _known("--runtime", runtime, tuple(RuntimeKind))
    began = time.monotonic()
    say = (lambda line: None) if as_json else (lambda line: print(visible(line), file=sys.stderr, flush=True))
    made = imaging.build(load_settings(), driver, runtime, engine, _address(listen), _url(url), say)
    if as_json:
        print_json({"name": made.name, "bytes": made.bytes})
    else:
        size = f"{made.bytes // 2**20} MB  " if made.bytes else ""
        print(f"{visible(made.name)}  {size}{time.monotonic() - began:.1f} s")


@app.command()
def freeze(
    name: Annotated[str, typer.Argument(help="Of --driver local_vm: tinyfat image list has it.")],
) -> None:
    """Boot a virtual machine of this image once and freeze it: those made of it later are clones, and need no boot."""
    from tinyfat.cli import imaging

    began = time.monotonic()
    imaging.freeze(load_settings(), name, lambda line: print(visible(line), file=sys.stderr))
    print(f"{name} has a machine to clone  {time.monotonic() - began:.1f} s")


@app.command("list")
def list_images(driver: _Driver = "nspawn", as_json: _Json = False) -> None:
    """What there is, the newest first."""
    from tinyfat.cli import imaging

    _known("--driver", driver, SERVER_KINDS)
    found = imaging.listed(load_settings(), driver)
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
    yes: Yes = False,
) -> None:
    """Remove old images; what a machine is made of stays."""
    from tinyfat.cli import imaging

    _known("--driver", driver, SERVER_KINDS)
    ask_first(f"Remove the images of {driver} but the newest {keep}? Those that machines are made of stay.", yes)
    removed, stayed = imaging.prune(load_settings(), driver, keep)
    for name in removed:
        print(f"removed {visible(name)}")
    for why in stayed:
        print(visible(why))
    if not removed:
        print("Nothing was removed.")


def _last_word(image: Listed, driver: str) -> str:
    return money(image.monthly_nanodollars) if driver == "hetzner" else image.parent


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
