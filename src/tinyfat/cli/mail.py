"""`tinyfat mail ...`: the ledger of what came in, what became of it, what went out."""

from __future__ import annotations

from typing import Annotated

import typer

from tinyfat.cli.client import Client
from tinyfat.cli.output import console, local_time, print_fields, print_json, print_table, visible
from tinyfat.settings import load_settings

app = typer.Typer(no_args_is_help=True, help="The ledger: every mail in and out, and what became of it.")
Json = Annotated[bool, typer.Option("--json", help="Print one JSON value.")]
Row = Annotated[str, typer.Argument(help="The message's id, or its beginning.", metavar="ID")]


@app.command("list")
def list_mail(name: Annotated[str, typer.Argument(help="The agent's name.")], as_json: Json = False) -> None:
    """Every message of an agent, oldest first."""
    messages = Client(load_settings()).get("agents", name, "mail")
    if as_json:
        print_json(messages)
        return
    rows = [
        (
            m["id"][:8],  # as much as `mail show` needs
            "→" if m["direction"] == "in" else "←",
            local_time(m["at"]),
            m["sender"] if m["direction"] == "in" else m["recipient"],
            m["subject"][:50],
            m["state"] + (f": {m['reason']}" if m["reason"] else ""),
        )
        for m in messages
    ]
    print_table(("id", "", "at", "with", "subject", "state"), rows, f"{name} has had no mail yet.")


@app.command()
def show(row_id: Row, as_json: Json = False) -> None:
    """One message, whole."""
    message = Client(load_settings()).get("mail", row_id)
    if as_json:
        print_json(message)
        return
    print_fields(
        [
            ("from", message["sender"]),
            ("to", message["recipient"]),
            ("subject", message["subject"]),
            ("message-id", message["message_id"]),
            ("at", local_time(message["at"])),
            ("state", message["state"] + (f": {message['reason']}" if message["reason"] else "")),
            ("proof", message["authentication"] or "-"),
            ("delivery", message["response"] or "-"),
            ("turn", str(message.get("turn", {}).get("state", "-"))),
            ("attachments", ", ".join(f"{a['filename']} ({a['size']} bytes)" for a in message["attachments"]) or "-"),
        ]
    )
    typer.echo("")
    if message["body_gone_at"]:
        typer.echo(f"(Its body was deleted by its age, {local_time(message['body_gone_at'])}: TINYFAT_KEEP_BODIES.)")
    typer.echo(visible(message["text"]))


@app.command()
def release(row_id: Row, as_json: Json = False) -> None:
    """Let out what was quarantined, held or ignored: the agent answers it."""
    message = Client(load_settings()).post("mail", row_id, "release")
    if as_json:
        print_json(message)
    else:
        console.print(
            f"Released: the agent answers {message['sender']} now. To let them always in: `tinyfat agent allow`."
        )
