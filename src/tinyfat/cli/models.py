"""`tinyfat models`: which vendors answer which alias, in which order, at which price."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from tinyfat.cli.client import Client
from tinyfat.cli.output import print_json, print_table
from tinyfat.settings import load_settings

NANODOLLARS_A_TOKEN_PER_DOLLAR_A_MILLION = 1000


def models(as_json: Annotated[bool, typer.Option("--json", help="Print one JSON value.")] = False) -> None:
    """The models agents can ask for, in the order their vendors are tried, with prices in dollars a million tokens."""
    listed = Client(load_settings()).get("models")
    if as_json:
        print_json(listed)
        return
    rows = [
        (
            model["alias"],
            model["vendor"],
            model["model"],
            *(_price(model["price"], kind) for kind in ("input", "cached", "output")),
            model["price"]["source"] + (" (dearer when long)" if model["cliffs"] else ""),
            "" if model["key_set"] else f"{model['key_variable']} is not set",
        )
        for model in listed
    ]
    print_table(("asked for", "vendor", "model", "$/M in", "cached", "out", "price from", ""), rows, "No models.")


def _price(price: dict[str, Any], kind: str) -> str:
    return f"{price[kind] / NANODOLLARS_A_TOKEN_PER_DOLLAR_A_MILLION:.2f}"
