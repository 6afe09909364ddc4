"""`tinyfat key ...`: the keys by which an agent, and whoever works for it, calls models through the relay."""

from __future__ import annotations

from typing import Annotated

import typer

from tinyfat.cli.asking import Yes, ask_first
from tinyfat.cli.client import Client
from tinyfat.cli.output import console, local_time, one_line, print_json, print_table
from tinyfat.listen_address import url_of
from tinyfat.settings import load_settings

app = typer.Typer(no_args_is_help=True, help="Keys of the relay: each opens one agent's budget and nothing else.")
Json = Annotated[bool, typer.Option("--json", help="Print one JSON value.")]
Name = Annotated[str, typer.Argument(help="The agent's name.")]


@app.command()
def add(name: Name, label: Annotated[str, typer.Option(help="What it is for.")] = "", as_json: Json = False) -> None:
    """Make a key. It is shown this once and kept as a hash."""
    settings = load_settings()
    made = Client(settings).post("agents", name, "keys", body={"label": label})
    if as_json:
        print_json(made)
        return
    relay_url = url_of(settings.relay_listen.host, settings.relay_listen.port)
    typer.echo(one_line(made["key"]))
    console.print(
        f"This is the only time it is shown. Base URL: {relay_url}/v1 (OpenAI's clients), {relay_url} (Anthropic's). "
        f"`tinyfat key revoke {name} {made['prefix']}` ends it.",
        soft_wrap=True,
    )


@app.command("list")
def list_keys(name: Name, as_json: Json = False) -> None:
    """The keys of an agent, its machine's own included."""
    keys = Client(load_settings()).get("agents", name, "keys")
    if as_json:
        print_json(keys)
        return
    rows = [(k["prefix"], k["label"], local_time(k["created_at"]), local_time(k["revoked_at"])) for k in keys]
    print_table(("begins with", "for", "made", "revoked"), rows, f"{name} has no key: `tinyfat key add {name}`.")


@app.command()
def revoke(
    name: Name, key: Annotated[str, typer.Argument(help="How it begins, or its id, from `key list`.")],
    yes: Yes = False, as_json: Json = False,
) -> None:  # fmt: skip
    """End a key, from the next call on. A machine's own is replaced by another at once."""
    client = Client(load_settings())
    if any(key in (one["id"], one["prefix"]) for one in client.get("agents", name, "keys")):
        ask_first(f"End the key {key} of {name} for good? Whatever calls with it is refused from then on.", yes)
    revoked = client.delete("agents", name, "keys", key)
    if as_json:
        print_json(revoked)
    elif revoked["machine_id"]:
        console.print(
            f"The machine's key {revoked['prefix']} opens nothing any more, and its box was told another. "
            f"To stop {name} from calling models: `tinyfat cap kill {name}`."
        )
    else:
        console.print(f"The key {revoked['prefix']} opens nothing any more.")
