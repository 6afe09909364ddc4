"""The command `tinyfat`. Exit codes: 0 done, 1 failed, 2 wrong use, 3 not found, 130 stopped by Ctrl-C."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from typer.exceptions import TyperException

from tinyfat import __version__
from tinyfat.cli import (
    agent,
    backup,
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
from tinyfat.cli.examples import add_examples
from tinyfat.cli.output import errors, fit_encoding, print_json, visible
from tinyfat.cli.unknown_settings import say_unknown_settings
from tinyfat.settings import SettingsRefused, load_settings

STOPPED = 130  # by Ctrl-C, as a shell says it

app = typer.Typer(
    no_args_is_help=True,
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
    say_unknown_settings()
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
app.add_typer(backup.app, name="backup", rich_help_panel=_BEGIN)
app.add_typer(serve.app, name="serve", rich_help_panel=_PARTS)
app.add_typer(standin.app, name="standin", rich_help_panel=_PARTS)


def _tell_version(asked: bool) -> None:
    if asked:
        typer.echo(f"tinyfat {__version__}")
        raise typer.Exit


@app.callback()
def tinyfat(
    version: Annotated[
        bool, typer.Option("--version", callback=_tell_version, is_eager=True, help="Print the version, and end.")
    ] = False,
) -> None:
    """TinyFat: an always-on AI agent for everyone, on a server of its own."""


def main() -> None:
    """Exits with 0 done, 1 failed, 2 wrong use, 3 not found, 130 stopped by Ctrl-C."""
    fit_encoding()
    command = typer.main.get_command(app)
    add_examples(command)
    as_json = "--json" in sys.argv[1:]
    try:
        code = command.main(standalone_mode=False)
        sys.exit(code if isinstance(code, int) else 0)
    except SettingsRefused as refused:
        _end(str(refused), 2, as_json)
    except CommandFailed as failed:
        _end(str(failed), failed.exit_code, as_json)
    except TyperException as wrong:
        if not wrong.format_message():  # its help was shown
            sys.exit(wrong.exit_code)
        context = getattr(wrong, "ctx", None)
        usage = f"{context.get_usage()}\nHelp: {context.command_path} --help\n" if context and not as_json else ""
        _end(f"{usage}{wrong.format_message()}", wrong.exit_code, as_json)
    except (KeyboardInterrupt, typer.Abort):
        sys.exit(STOPPED)


def _end(words: str, code: int, as_json: bool) -> NoReturn:
    """A failure in words for people; for programs an object on standard output too."""
    errors.print(visible(words), style="red")
    if as_json:
        print_json({"error": {"message": words, "exit_code": code}})
    sys.exit(code)
