"""`tinyfat mail ...`: the ledger of what came in, what became of it, what went out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import typer

from tinyfat.cli.client import Client, NothingThere, WrongUse
from tinyfat.cli.output import console, errors, local_time, one_line, print_fields, print_json, visible
from tinyfat.settings import load_settings

ID_DIGITS = 13  # of an id that is to be the only one that begins so

app = typer.Typer(no_args_is_help=True, help="The ledger: every mail in and out, and what became of it.")
Json = Annotated[bool, typer.Option("--json", help="Print one JSON value.")]
Row = Annotated[str, typer.Argument(help="The message's id, or its beginning.", metavar="ID")]


@app.command("list")
def list_mail(
    name: Annotated[str, typer.Argument(help="The agent's name; without one, every agent's.")] = "",
    state: Annotated[list[str] | None, typer.Option(help="Only in this state; may be said again.")] = None,
    limit: Annotated[int, typer.Option(help="So many, the newest.", min=1, max=10_000)] = 1000,
    before: Annotated[str, typer.Option(help="Only older than this message.", metavar="ID")] = "",
    operator: Annotated[
        bool, typer.Option("--operator", help="What came to postmaster@, abuse@ and the like.")
    ] = False,
    as_json: Json = False,
) -> None:
    """The newest messages, oldest first; that there are more is said."""
    if operator:
        if name or state or before:
            raise WrongUse("--operator lists the operator's own mail: of it, only --limit can be said.")
        _list_operators(limit, as_json)
        return
    where = ("agents", name, "mail") if name else ("mail",)
    messages, more = Client(load_settings()).page(*where, limit=limit, state=state or [], before=before)
    if as_json:
        print_json(messages)
    else:
        nothing = "There is no such mail." if before or state or not name else f"{name} has had no mail yet."
        _print_mails(messages, not name, nothing)
    if more:
        again = " ".join(["tinyfat mail list", *filter(None, [name]), *(f"--state {one}" for one in state or [])])
        errors.print(
            f"There are more: `{again} --limit {limit} --before {messages[0]['id'][:ID_DIGITS]}`", markup=False
        )


def _list_operators(limit: int, as_json: bool) -> None:
    mails = Client(load_settings()).get("operator-mail", limit=limit)
    if as_json:
        print_json(mails)
        return
    if not mails:
        console.print("Nobody has written to postmaster@, abuse@ or their like.")
    for one in mails:
        _print_line(
            f"{one['id'][:8]} {local_time(one['at'])} {one['mailbox']:10} {one['sender']:24.24} {one['subject']}"
        )


def _print_mails(messages: Sequence[dict[str, Any]], whose: bool, nothing: str) -> None:
    """A line a mail, and beneath it the reason, where there is one. Each is cut at the terminal's width."""
    if not messages:
        console.print(nothing)
    for message in messages:
        coming = message["direction"] == "in"
        other, ours = message["sender"], message["recipient"]
        if not coming:
            other, ours = ours, other
        agent = f"{ours.partition('@')[0]:10.10} " if whose else ""
        # Of an id as much as `mail show` needs.
        head = f"{message['id'][:8]} {'→' if coming else '←'} {local_time(message['at'])} {message['state']:11} {agent}"
        _print_line(f"{head}{other:24.24} {message['subject']}")
        if message["reason"]:
            _print_line(f"           {message['reason']}")


def _print_line(text: str) -> None:
    console.print(one_line(text), no_wrap=True, overflow="ellipsis", crop=True)


@app.command()
def show(row_id: Row, as_json: Json = False) -> None:
    """One message, whole."""
    client = Client(load_settings())
    try:
        message = client.get("mail", row_id)
    except NothingThere as nothing:
        _show_operators(client, row_id, nothing, as_json)
        return
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


def _show_operators(client: Client, row_id: str, nothing: NothingThere, as_json: bool) -> None:
    """One of the operator's own. Raises `nothing` where there is none either."""
    try:
        mail = client.get("operator-mail", row_id)
    except NothingThere:
        raise nothing from None
    if as_json:
        print_json(mail)
        return
    files = ", ".join(f"{a['filename']} ({a['size']} bytes)" for a in mail["attachments"]) or "-"
    names = ("sender", "recipient", "subject", "message_id", "client_ip")
    print_fields([*((name, mail[name]) for name in names), ("at", local_time(mail["at"])), ("attachments", files)])
    typer.echo("")
    typer.echo(visible(mail["text"]))


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
