"""`tinyfat byok ...`: an agent on its owner's own key at a vendor (BYOK: bring your own key)."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from tinyfat.cli.asking import Yes, ask_first
from tinyfat.cli.cap import dollars
from tinyfat.cli.client import Client, WrongUse
from tinyfat.cli.output import console, local_time, print_json, print_table
from tinyfat.domain.byok import KEY_CHARS_MAX, VendorKeyRefused, vendor_key
from tinyfat.settings import load_settings

app = typer.Typer(no_args_is_help=True, help="Run an agent on its owner's own key: the owner's account pays its calls.")
Json = Annotated[bool, typer.Option("--json", help="Print one JSON value.")]
Name = Annotated[str, typer.Argument(help="The agent's name.")]
VendorName = Annotated[str, typer.Option("--vendor", help="anthropic, openai, fireworks, or one of `tinyfat models`.")]


@app.command("set")
def set_key(name: Name, vendor: VendorName, as_json: Json = False) -> None:
    """Take a key: asked for without echo, or read from standard input. One real call tries it before it is kept."""
    client = Client(load_settings())
    try:
        key = vendor_key(vendor.lower(), _entered(vendor))
    except VendorKeyRefused as refused:
        raise WrongUse(str(refused)) from None
    kept = client.post("agents", name, "byok", body={"vendor": vendor, "key": key.value})
    if as_json:
        print_json(kept)
        return
    ending = f" that ends in {kept['hint']}" if kept["hint"] else ""
    month = "none on the owner's key" if kept["month_included"] else dollars(kept["month_nanodollars"])
    console.print(
        f"{name} now calls {kept['vendor']} with the key{ending}; a first call with it was answered. "
        f"Its cap for the month: {month}.",
    )


@app.command("list")
def list_keys(name: Name, as_json: Json = False) -> None:
    """The vendors whose keys an agent's owner brought."""
    kept = Client(load_settings()).get("agents", name, "byok")
    if as_json:
        print_json(kept)
        return
    rows = [(k["vendor"], f"…{k['hint']}" if k["hint"] else "", local_time(k["created_at"])) for k in kept]
    print_table(("vendor", "ends in", "entered"), rows, f"{name} has no key of its owner's: the operator pays.")


@app.command()
def clear(name: Name, vendor: VendorName, yes: Yes = False, as_json: Json = False) -> None:
    """Forget a key. Without any, the agent is the operator's to pay again, within its allowance."""
    client = Client(load_settings())
    if any(kept["vendor"] == vendor.lower() for kept in client.get("agents", name, "byok")):
        ask_first(f"Forget the key of {name}'s owner at {vendor}? Nobody but the owner can enter it again.", yes)
    cleared = client.delete("agents", name, "byok", vendor)
    if as_json:
        print_json(cleared)
    else:
        console.print(
            f"The key of {vendor} is forgotten. {name}'s cap for the month: {dollars(cleared['month_nanodollars'])}."
        )


def _entered(vendor: str) -> str:
    if sys.stdin.isatty():
        entered: str = typer.prompt(f"The key at {vendor} (not shown)", hide_input=True)
        return entered
    return sys.stdin.read(KEY_CHARS_MAX + 2)
