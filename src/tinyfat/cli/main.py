"""The command `tinyfat`. Exit codes: 0 done, 1 failed, 2 wrong use, 3 not found."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from tinyfat import __version__
from tinyfat.cli import (
    agent,
    byok,
    cap,
    disk,
    doctor,
    fleet,
    image,
    key,
    mail,
    models,
    money,
    serve,
    ssh,
    standin,
    usage,
)
from tinyfat.cli.client import CommandFailed
from tinyfat.cli.output import errors, visible
from tinyfat.settings import SettingsRefused, load_settings

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="TinyFat: an always-on AI agent for everyone, on a server of its own.",
)
# The panels of `tinyfat --help`.
_BEGIN, _AGENTS, _MONEY = "Begin", "Agents", "Models and money"
_SERVERS, _PARTS = "Servers", "Parts of TinyFat alone"


@app.command(rich_help_panel=_BEGIN)
def up() -> None:
    """Start TinyFat and stay: mail comes in, agents answer. Ctrl-C or SIGTERM ends it."""
    # Here, not above: the other commands start in a fraction of the time without the engine and the server.
    from tinyfat.cli import up as starting
    from tinyfat.cli.logs import set_up_log

    settings = load_settings()
    set_up_log(settings.log)
    starting.run(settings)


@app.command(rich_help_panel=_BEGIN)
def demo() -> None:
    """See it work: an agent answers three mails of a thread, here and now, and nothing stays behind."""
    from tinyfat.cli.demo import demo as show

    show()


def box(folder: Annotated[Path, typer.Option(help="The box's own folder, with its box.json.")]) -> None:
    """The supervisor beside an agent's runtime. The machine's driver starts it; people rarely do."""
    from tinyfat.box.__main__ import main as box_main

    sys.exit(box_main(["--folder", str(folder)]))


@app.command(rich_help_panel=_BEGIN)
def version() -> None:
    """Print the version, and the build of the box that comes with it."""
    from tinyfat.box.build import BUILD

    typer.echo(f"{__version__} ({BUILD})")


# Commands come before groups in each panel, and the panels in the order of their first commands.
app.command(rich_help_panel=_BEGIN)(doctor.doctor)
app.command(rich_help_panel=_AGENTS)(ssh.ssh)
app.command(rich_help_panel=_AGENTS)(ssh.audit)
app.add_typer(agent.app, name="agent", rich_help_panel=_AGENTS)
app.add_typer(mail.app, name="mail", rich_help_panel=_AGENTS)
app.command(rich_help_panel=_MONEY)(money.money)
app.command(rich_help_panel=_MONEY)(usage.usage)
app.command(rich_help_panel=_MONEY)(models.models)
app.add_typer(cap.app, name="cap", rich_help_panel=_MONEY)
app.add_typer(key.app, name="key", rich_help_panel=_MONEY)
app.add_typer(byok.app, name="byok", rich_help_panel=_MONEY)
app.command(rich_help_panel=_SERVERS)(fleet.fleet)
app.command(rich_help_panel=_SERVERS)(disk.disk)
app.add_typer(image.app, name="image", rich_help_panel=_SERVERS)
app.command(rich_help_panel=_PARTS)(box)
app.add_typer(serve.app, name="serve", rich_help_panel=_PARTS)
app.add_typer(standin.app, name="standin", rich_help_panel=_PARTS)


def main() -> None:
    try:
        app()
    except SettingsRefused as refused:
        errors.print(visible(str(refused)), style="red")
        sys.exit(2)
    except CommandFailed as failed:
        errors.print(visible(str(failed)), style="red")
        sys.exit(failed.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)
