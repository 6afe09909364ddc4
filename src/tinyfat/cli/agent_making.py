"""`tinyfat agent create|wait|retry`: an agent comes to be, and whoever makes it sees how far it is."""

from __future__ import annotations

from typing import Annotated

import typer

from tinyfat.cli.agent_steps import Shown, followed
from tinyfat.cli.client import Client, CommandFailed
from tinyfat.cli.output import console, errors, print_json
from tinyfat.domain.agents import Plan, RuntimeKind
from tinyfat.domain.machines import PROCESS
from tinyfat.settings import load_settings

CREATE_SECONDS_MAX = 40 * 60.0
Json = Annotated[bool, typer.Option("--json", help="Print one JSON value.")]
Name = Annotated[str, typer.Argument(help="The agent's name.")]
Wait = Annotated[bool, typer.Option("--wait", help="Until it has answered a first question.")]


def create(
    name: Name,
    owner: Annotated[str, typer.Option(help="The owner's mail address: only the owner is answered at first.")],
    runtime: Annotated[RuntimeKind, typer.Option(help="What the agent is.")] = RuntimeKind.OPENCLAW,
    plan: Annotated[Plan | None, typer.Option(help="fat: a server of its own.")] = None,
    machine: Annotated[str, typer.Option(help="Where it runs; else as TINYFAT_MACHINE says.")] = "",
    location: Annotated[str, typer.Option(help="Where its server is to be; else the first that has room.")] = "",
    image: Annotated[str, typer.Option(help="What its server is made from, from `tinyfat image list`.")] = "",
    size: Annotated[str, typer.Option(help="The provider's word for it, such as cx23.")] = "",
    take_name: Annotated[
        bool, typer.Option("--take-name", help="Though the name is kept for another owner, whose agent had it.")
    ] = False,
    wait: Wait = False,
    as_json: Json = False,
) -> None:
    """Make an agent; its address is NAME@DOMAIN. Said again after a failure or Ctrl-C, it goes on."""
    client = Client(load_settings())
    place = {"plan": plan, "machine": machine, "location": location, "image": image, "size": size}
    agent = client.post(
        "agents", body={"name": name, "owner": owner, "runtime": runtime, "take_name": take_name, **place}
    )
    if agent["machine_kind"] == PROCESS:
        errors.print(f"Its machine is of the kind {PROCESS}: it runs {client.get('status')['process']}.")
    _told(client, agent, wait, as_json)


def wait(
    name: Name,
    timeout: Annotated[float, typer.Option(min=0.0, help="Seconds; then exit code 1.")] = CREATE_SECONDS_MAX,
    as_json: Json = False,
) -> None:
    """Until an agent that is being made has answered a first question. Exit code 1 where that fails."""
    client = Client(load_settings())
    _told(client, client.get("agents", name), True, as_json, timeout)


def retry(name: Name, wait: Wait = False, as_json: Json = False) -> None:
    """Make an agent anew whose making failed, with all it was asked for."""
    client = Client(load_settings())
    _told(client, client.post("agents", name, "retry"), wait, as_json)


def _told(client: Client, agent: Shown, wait: bool, as_json: bool, seconds: float = CREATE_SECONDS_MAX) -> None:
    """What became of it, or how to see it. Raises CommandFailed."""
    name = agent["name"]
    if wait:
        agent = _wait_until_made(client, name, seconds, quiet=as_json)
    if as_json:
        print_json(agent)
    elif wait:
        console.print(f"{agent['address']} is ready: {agent['owner']} can write to it.")
    else:
        console.print(f"{agent['address']} is being made; `tinyfat agent wait {name}` tells when it is ready.")


def _wait_until_made(client: Client, name: str, seconds: float, quiet: bool) -> Shown:
    """Raises CommandFailed with the reason where it failed."""

    def made(agent: Shown) -> bool:
        if agent["state"] == "failed":
            again = f"`tinyfat agent retry {name}`"
            more = "" if again in agent["reason"] else f"\n{again} makes it anew."
            raise CommandFailed(f"{agent['reason']}{more} `tinyfat agent destroy {name}` frees the name.")
        if agent["state"] == "destroying":
            raise CommandFailed(f"{name} is being destroyed.")
        return bool(agent["state"] == "ready")

    return followed(client, name, seconds, made, f"{name} is not ready", quiet, "provision")
