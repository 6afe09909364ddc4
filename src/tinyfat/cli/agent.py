"""`tinyfat agent ...`: make agents, look at them, say who may write to them, end them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from tinyfat.cli import agent_keys, agent_making
from tinyfat.cli.agent_export import export_state
from tinyfat.cli.agent_steps import Shown, complaints, followed, is_over, seconds
from tinyfat.cli.asking import Yes, agrees, ask_first
from tinyfat.cli.client import Client, CommandFailed
from tinyfat.cli.output import console, local_time, one_line, print_fields, print_json, print_table
from tinyfat.domain.usage import money
from tinyfat.settings import load_settings

LOOK_SECONDS = 0.2
DESTROY_SECONDS_MAX = 300
REPLACE_SECONDS_MAX = 90 * 60
REPLACED = "the old machine ended"  # the last of flows/replace's steps
PUBLISH_SECONDS_MAX = 25 * 60
SEEN = "seen from outside"  # the last of flows/publish's steps
FOLLOW_SECONDS = 0.5

app = typer.Typer(no_args_is_help=True, help="Make agents, look at them, end them.")
app.add_typer(agent_keys.app, name="keys")
Json = Annotated[bool, typer.Option("--json", help="Print one JSON value.")]
Name = Annotated[str, typer.Argument(help="The agent's name.")]


app.command()(agent_making.create)
app.command()(agent_making.wait)
app.command()(agent_making.retry)


@app.command("list")
def list_agents(as_json: Json = False) -> None:
    """All agents."""
    agents = Client(load_settings()).get("agents")
    if as_json:
        print_json(agents)
        return
    rows = [
        (a["name"], a["address"], a["owner"], a["runtime"], a["state"], (a["machine"] or {}).get("state", "-"))
        for a in agents
    ]
    print_table(
        ("name", "address", "owner", "runtime", "state", "machine"),
        rows,
        "No agents yet: `tinyfat agent create NAME --owner you@example.org` makes one.",
    )


@app.command()
def show(name: Name, as_json: Json = False) -> None:
    """One agent: its state, its machine, how far its making has come."""
    agent = Client(load_settings()).get("agents", name)
    if as_json:
        print_json(agent)
        return
    machine = agent["machine"] or {}
    print_fields(
        [
            ("agent", f"{agent['name']} <{agent['address']}>"),
            ("state", agent["state"] + (f": {agent['reason']}" if agent["reason"] else "")),
            ("owner", agent["owner"]),
            ("may write", ", ".join([agent["owner"], *agent["allowed"]])),
            ("runtime", f"{agent['runtime']} {machine.get('version', '')}"),
            ("machine", f"{machine.get('kind', 'none')} {machine.get('id', '')}"),
            *_server_fields(machine),
            *_site_fields(agent, machine),
            *(("alarm", detail) for detail in agent["alarms"]),
            *_box_fields(machine),
            ("it says", f"{machine.get('state', '-')} {machine.get('detail', '')}"),
            ("heard of", local_time(machine.get("seen_at"))),
            ("memory", f"{machine.get('memory_bytes', 0) / 1e6:.0f} MB, {machine.get('restarts', 0)} restarts"),
            ("made", local_time(agent["created_at"])),
        ]
    )
    rows = [
        (s["flow"], s["name"], f"{seconds(s):.1f} s" if s["ended_at"] else "under way", s["detail"])
        for s in agent["steps"]
    ]
    print_table(("", "step", "took", ""), rows, "")


def _box_fields(machine: dict[str, Any]) -> list[tuple[str, str]]:
    if not machine.get("box"):
        return []
    old = ", OUTDATED: other code than this control plane's; `tinyfat up` or `tinyfat agent replace` renews it"
    return [("box", machine["box"] + (old if machine.get("box_outdated") else ""))]


def _server_fields(machine: dict[str, Any]) -> list[tuple[str, str]]:
    """Where it is a server of its own."""
    if not machine.get("hostname"):
        return []
    addresses = " ".join(filter(None, (machine["ipv4"], machine["ipv6"])))
    made_from = " ".join(filter(None, (machine["image"] or "the provider's plain image", machine["size"])))
    return [
        ("reached at", f"{machine['hostname']} ({addresses or 'no address yet'})"),
        ("made from", made_from + (f", in {machine['location']}" if machine["location"] else "")),
        ("costs", f"{money(machine['month_nanodollars'])} a month"),
    ]


def _site_fields(agent: dict[str, Any], machine: dict[str, Any]) -> list[tuple[str, str]]:
    if not machine.get("hostname"):
        return []
    shown = (
        f"https://{machine['hostname']}/, from the folder `public` of its workspace"
        if agent["published"]
        else "nothing"
    )
    complaint = machine["complaint"]
    return [("publishes", shown), *([("complains", complaint)] if complaint else [])]


@app.command()
def export(
    name: Name, file: Annotated[Path, typer.Argument(help="A new file, such as ada.tar.gz.")], as_json: Json = False
) -> None:
    """Keep a copy of what an agent remembers and of its files. Mail that comes meanwhile waits."""
    kept = _exported(Client(load_settings()), name, file, quiet=as_json)
    if as_json:
        print_json(kept)


def _exported(client: Client, name: str, file: Path, quiet: bool) -> dict[str, Any]:
    if quiet:
        return export_state(client, name, file)
    console.print(f"The runtime of {name} stops while its state is packed; mail waits.")
    kept = export_state(client, name, file)
    console.print(_kept(name, kept))
    return kept


def _kept(name: str, kept: dict[str, Any]) -> str:
    return f"{kept['file']} has the state of {name}: {kept['bytes']} bytes, SHA-256 {kept['sha256']}."


@app.command()
def destroy(
    name: Name,
    export: Annotated[Path | None, typer.Option(help="A new file for a copy of its data, before it goes.")] = None,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """End an agent: its machine and all its data are removed, and seen to be gone. Its mail stays in the ledger."""
    client = Client(load_settings())
    agent = client.get("agents", name)
    ask_first(_what_ends(agent, export), yes)
    if export is not None:
        _export_first(client, name, export, quiet=as_json)
    client.delete("agents", name)
    deadline = time.monotonic() + DESTROY_SECONDS_MAX
    while time.monotonic() < deadline:
        ended = client.get("destroyed", agent["id"])
        if ended["state"] == "destroyed":
            print_json(ended) if as_json else console.print(f"{agent['address']} is gone, and its machine with it.")
            return
        if ended["reason"]:
            raise CommandFailed(f"{ended['reason']} Say `tinyfat agent destroy {name}` again to try once more.")
        time.sleep(LOOK_SECONDS)
    raise CommandFailed(f"{name} is not gone after {DESTROY_SECONDS_MAX} s; `tinyfat agent show {name}` tells why.")


def _what_ends(agent: dict[str, Any], export: Path | None) -> str:
    words = f"End {agent['address']} and remove its machine and data?"
    if export is not None:
        return f"{words} A copy of its data is written to {export} first."
    return f"`tinyfat agent destroy {agent['name']} --export FILE` would keep a copy of its data.\n{words}"


def _export_first(client: Client, name: str, file: Path, quiet: bool) -> None:
    """Raises CommandFailed where that cannot be done: then nothing ends."""
    try:
        _exported(client, name, file, quiet)
    except CommandFailed as error:
        raise type(error)(
            f"{error}\nNothing was destroyed. Without --export {name} ends, and all its data with it."
        ) from None


@app.command()
def replace(
    name: Name,
    image: Annotated[str, typer.Option(help="What the new one is made from; else the newest.")] = "",
    size: Annotated[str, typer.Option(help="The provider's word for it; else as it is.")] = "",
    without_state: Annotated[bool, typer.Option(help="Its machine is dead: the memory starts anew.")] = False,
    yes: Yes = False,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Until the old machine is gone.")] = True,
    as_json: Json = False,
) -> None:
    """Give an agent another server: same name, same address, same memory. Mail that comes meanwhile waits."""
    client = Client(load_settings())
    if without_state:
        ask_first(_what_is_lost(client.get("agents", name)), yes)
    body = {"image": image, "size": size, "without_state": without_state}
    begun = client.post("agents", name, "replace", body=body)
    if wait:
        _wait_until_replaced(client, name, begun["machine"], quiet=as_json)
    if as_json:
        print_json(client.get("agents", name))
    elif wait:
        kept = "its name and its address are the same" if without_state else "its name, its address and its memory are"
        more = "; its memory starts anew, and its owner is told." if without_state else " the same."
        console.print(f"{name} lives on another machine; {kept}{more}")
    else:
        console.print(f"Under way; `tinyfat agent show {name}` tells how far it is.")


def _what_is_lost(agent: dict[str, Any]) -> str:
    name, heard = agent["name"], (agent["machine"] or {}).get("seen_at")
    return (
        f"The box of {name} was last heard of at {local_time(heard)}. While it speaks, `tinyfat agent replace {name}` "
        f"takes everything along.\n"
        f"Lost is what lies on its machine: what {name} remembers of every conversation, the files it keeps, what was "
        "set up there. Kept are its name, its address, its keys and all mail.\n"
        f"Replace the machine of {agent['address']} without its state?"
    )


def _wait_until_replaced(client: Client, name: str, machine: str, quiet: bool) -> None:
    """Raises CommandFailed with the reason where it was undone."""

    def replaced(agent: Shown) -> bool:
        if agent["reason"]:
            raise CommandFailed(agent["reason"])
        if not is_over(agent, REPLACED):
            return False
        if words := complaints(agent):
            raise CommandFailed(f"{name} lives on the machine {machine}, and: {words}")
        return True

    followed(client, name, REPLACE_SECONDS_MAX, replaced, f"{name} is not replaced", quiet, "replace")


@app.command()
def publish(
    name: Name,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Until its site answers.")] = True,
    as_json: Json = False,
) -> None:
    """Show the folder `public` of its workspace to the world, at https://NAME.DOMAIN. Port 443 opens; no other."""
    _publishing(name, "publish", f"shows what lies in the folder `public` of {name}'s workspace.", wait, as_json)


@app.command()
def unpublish(
    name: Name,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Until nobody answers there.")] = True,
    as_json: Json = False,
) -> None:
    """Show nothing any more: port 443 is closed, and the folder stays as it is."""
    _publishing(name, "unpublish", "is there no more; its pages are still in the folder `public`.", wait, as_json)


def _publishing(name: str, which: str, done: str, wait: bool, as_json: bool) -> None:
    """`done`: what is said of the site's URL at the end. Raises CommandFailed with the reason where it did not come
    about."""
    client = Client(load_settings())
    begun: dict[str, Any] = client.post("agents", name, which)
    if wait:
        _wait_until_seen(client, name, quiet=as_json)
    if as_json:
        print_json(begun)
    elif wait:
        console.print(f"{begun['url']} {done}")
    else:
        console.print(f"Under way; `tinyfat agent show {name}` tells how far it is.")


def _wait_until_seen(client: Client, name: str, quiet: bool) -> None:
    """Raises CommandFailed."""

    def seen(agent: Shown) -> bool:
        if words := complaints(agent):
            raise CommandFailed(words)
        return is_over(agent, SEEN)

    followed(client, name, PUBLISH_SECONDS_MAX, seen, f"The site of {name} is not as it shall be", quiet, "publish")


@app.command()
def allow(
    name: Name,
    address: Annotated[str, typer.Argument(help="An address, or @domain.")],
    release: Annotated[
        bool, typer.Option("--release", help="And answer what of that sender waits in quarantine.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Let somebody else write to an agent. What of that sender waits in quarantine is offered to be answered."""
    client = Client(load_settings())
    agent = client.post("agents", name, "senders", body={"pattern": address})
    waiting = agent["waiting"]
    if not as_json:
        _print_senders(agent, as_json)
    if waiting and not release and not as_json:
        release = agrees(f"In quarantine: {_mails(waiting)} of that sender. Answer now?")
    released = release and bool(waiting)
    if released:
        for message in waiting:
            client.post("mail", message, "release")
    if as_json:
        print_json({**agent, "released": waiting if released else []})
    elif waiting:
        later = f"still there; `tinyfat agent allow {name} {address} --release` lets it be answered."
        console.print(f"{_mails(waiting)} of that sender: {'answered now.' if released else later}")


def _mails(waiting: Sequence[str]) -> str:
    return "1 mail" if len(waiting) == 1 else f"{len(waiting)} mails"


@app.command()
def deny(
    name: Name, address: Annotated[str, typer.Argument(help="An address, or @domain.")], as_json: Json = False
) -> None:
    """Take somebody off the list again."""
    agent = Client(load_settings()).delete("agents", name, "senders", address)
    if not agent["removed"] and not as_json:
        console.print(f"{address} was not on the list.")
    _print_senders(agent, as_json)


def _print_senders(agent: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(agent)
    else:
        console.print(f"{agent['address']} is answered for: {', '.join([agent['owner'], *agent['allowed']])}")


@app.command()
def logs(
    name: Name,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until Ctrl-C.")] = False,
    lines: Annotated[int, typer.Option("--lines", "-n", min=1, max=1000, help="How many of the newest.")] = 200,
    as_json: Json = False,
) -> None:
    """What an agent's box and runtime wrote: it may hold what owner and agent wrote to each other."""
    client = Client(load_settings())
    last = 0
    while True:
        found = client.get("agents", name, "logs", after=last, limit=lines if last == 0 else 1000)
        if as_json and not follow:
            print_json(found)
            return
        for line in found:
            last = line["id"]
            at = datetime.fromtimestamp(line["at"]).strftime("%Y-%m-%d %H:%M:%S")
            if as_json:
                print_json(line, indent=None)
            else:
                typer.echo(one_line(f"{at} {line['source']:8}{line['text']}"))
        if not follow:
            return
        last = max(last, 1)
        time.sleep(FOLLOW_SECONDS)
