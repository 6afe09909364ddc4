"""`tinyfat backup ...`: the control plane's own survival, until backups are taken by themselves."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated, Any

import typer

from tinyfat.cli.output import console, print_json
from tinyfat.settings import load_settings

app = typer.Typer(no_args_is_help=True, help="A home and its database as one file, and back.")
Json = Annotated[bool, typer.Option("--json", help="Print one JSON value.")]


@app.command()
def home(file: Annotated[Path, typer.Argument(help="A new file, such as tinyfat.tar.")], as_json: Json = False) -> None:
    """Back up TINYFAT_HOME and its database, keys included: keep the file as you keep them."""
    from tinyfat.cli.home_archive import back_up

    made = asyncio.run(back_up(load_settings(), file))
    if as_json:
        print_json(_shown(made))
        return
    console.print(f"{made.file} has the home and its database: {made.bytes} bytes, readable by you alone.")
    if not made.machines:
        console.print(
            "TinyFat runs, so what agents on machines of this host keep in their folders is not in it: stop TinyFat "
            "first, or say `tinyfat agent export NAME FILE`."
        )


@app.command()
def restore(file: Annotated[Path, typer.Argument(help="What `backup home` wrote.")], as_json: Json = False) -> None:
    """Make TINYFAT_HOME, which is not there yet, from a backup. With TINYFAT_DATABASE_URL, into that empty database."""
    from tinyfat.cli.home_archive import bring_back

    settings = load_settings()
    made = asyncio.run(bring_back(settings, file))
    if as_json:
        print_json(_shown(made))
    else:
        console.print(f"{settings.home} is as it was backed up. Start it with `tinyfat up`.")


def _shown(made: Any) -> dict[str, Any]:
    return {"file": str(made.file), "bytes": made.bytes, "machines": made.machines}
