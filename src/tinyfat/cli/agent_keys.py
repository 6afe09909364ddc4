"""`tinyfat agent keys ...`: the SSH keys with which an owner logs in to their agent's server."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tinyfat.cli.client import Client, WrongUse
from tinyfat.cli.output import console, local_time, print_json, print_table
from tinyfat.settings import load_settings

app = typer.Typer(no_args_is_help=True, help="SSH keys of the owner: `ssh owner@NAME.DOMAIN`.")
Json = Annotated[bool, typer.Option("--json", help="Print one JSON value.")]
Name = Annotated[str, typer.Argument(help="The agent's name.")]


@app.command()
def add(
    name: Name,
    key: Annotated[str, typer.Argument(help="A file such as ~/.ssh/id_ed25519.pub, or the key itself in quotes.")],
    label: Annotated[str, typer.Option(help="What it is called here; else its comment.")] = "",
    as_json: Json = False,
) -> None:
    """Let a key in. Its server knows it within seconds."""
    body = {"key": _text(key), "name": label}
    added = Client(load_settings()).post("agents", name, "ssh-keys", body=body)
    if as_json:
        print_json(added)
    else:
        console.print(f"{added['fingerprint']} {added['name']} opens the server of {name}.")


@app.command()
def remove(
    name: Name, key: Annotated[str, typer.Argument(help="Its fingerprint or name, from `keys list`.")],
    as_json: Json = False,
) -> None:  # fmt: skip
    """Shut a key out. Sessions that are open stay open."""
    removed = Client(load_settings()).delete("agents", name, "ssh-keys", key)
    if as_json:
        print_json(removed)
    else:
        console.print(f"{removed['fingerprint']} {removed['name']} opens nothing any more.")


@app.command("list")
def list_keys(name: Name, as_json: Json = False) -> None:
    """The keys that are let in."""
    keys = Client(load_settings()).get("agents", name, "ssh-keys")
    if as_json:
        print_json(keys)
        return
    rows = [(key["fingerprint"], key["name"], local_time(key["added_at"])) for key in keys]
    print_table(("fingerprint", "name", "added"), rows, f"{name} has none: `tinyfat agent keys add {name} FILE`.")


def _text(key: str) -> str:
    """Raises WrongUse."""
    if " " in key.strip():
        return key
    file = Path(key).expanduser()
    try:
        return file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise WrongUse(f"{file} is no file with a public key: {error}") from None
