"""The command line as such: help, versions, completion, encodings, failures for programs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from tests.machine_speed import patient
from tests.running import surroundings
from tinyfat.cli.examples import EXAMPLES
from tinyfat.cli.main import app
from tinyfat.setting_names import unknown
from tinyfat.settings import Settings

COMMAND_SECONDS_MAX = 60.0


def commands(command: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    for name, beneath in command.commands.items():
        deeper = f"{path} {name}".strip()
        if hasattr(beneath, "commands"):
            yield from commands(beneath, deeper)
        else:
            yield deeper, beneath


COMMANDS = dict(commands(typer.main.get_command(app)))


def run(home: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "tinyfat", *arguments], capture_output=True, check=False, stdin=subprocess.DEVNULL,
        env=surroundings() | {"TINYFAT_HOME": str(home)} | environment, timeout=patient(COMMAND_SECONDS_MAX),
    )  # fmt: skip


def test_each_command_has_an_example_of_itself_and_no_other_is_named() -> None:
    assert set(EXAMPLES) == set(COMMANDS)
    assert all(f"tinyfat {path}" in example for path, example in EXAMPLES.items())


@pytest.mark.parametrize("path", COMMANDS)
def test_an_example_has_only_options_that_there_are(path: str) -> None:
    known = {option for parameter in COMMANDS[path].params for option in (*parameter.opts, *parameter.secondary_opts)}
    used = {word for word in EXAMPLES[path].partition(" -- ")[0].split() if word.startswith("--")}
    assert used <= known


def test_version_and_an_example_are_shown(tmp_path: Path) -> None:
    said = run(tmp_path, "--version")
    assert said.returncode == 0 and said.stdout.startswith(b"tinyfat 0.")
    assert EXAMPLES["agent create"] in " ".join(run(tmp_path, "agent", "create", "--help").stdout.decode().split())


@pytest.mark.parametrize(
    ("words", "code", "part"),
    [
        (("agent", "list"), 1, "does not run"),
        (("agent", "show", "ada"), 1, "does not run"),
        (("agent", "show"), 2, "name"),
        (("agent", "lst"), 2, "No such command"),
        (("agent", "list", "--nonsense"), 2, "--nonsense"),
        (("mail", "list", "--limit", "many"), 2, "--limit"),
    ],
)
def test_a_failure_is_an_object_for_programs_and_words_for_people(
    tmp_path: Path, words: tuple[str, ...], code: int, part: str
) -> None:
    for_programs, for_people = run(tmp_path, *words, "--json"), run(tmp_path, *words)
    error = json.loads(for_programs.stdout)["error"]
    assert for_programs.returncode == for_people.returncode == error["exit_code"] == code
    assert part in error["message"] and part in for_people.stderr.decode() and for_people.stdout == b""


def test_a_setting_that_cannot_be_is_an_object_too(tmp_path: Path) -> None:
    said = run(tmp_path, "agent", "list", "--json", TINYFAT_LOG="loud")
    assert said.returncode == 2 and "TINYFAT_LOG" in json.loads(said.stdout)["error"]["message"]


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ["latin-1", "ascii", "cp1252", "utf-8"])
@pytest.mark.parametrize("words", [("doctor",), ("doctor", "--json"), ("--help",), ("agent", "create", "--help")])
def test_no_encoding_of_a_terminal_ends_a_command(tmp_path: Path, encoding: str, words: tuple[str, ...]) -> None:
    said = run(tmp_path / "Grüße", *words, PYTHONIOENCODING=encoding)
    assert b"Traceback" not in said.stderr and said.stdout
    if "--json" in words:
        assert any("Grüße" in finding["words"] for finding in json.loads(said.stdout.decode(encoding)))


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash on this machine")
def test_bash_completes_commands() -> None:
    program = Path(sys.executable).parent
    environment = surroundings() | {"PATH": f"{program}:{os.environ['PATH']}"}
    shown = f"{program}/tinyfat --show-completion bash"
    asking = 'COMP_WORDS=(tinyfat agent w); COMP_CWORD=2; _tinyfat_completion tinyfat; echo "${COMPREPLY[@]}"'
    said = subprocess.run(
        ["bash", "-c", f'eval "$(_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION=1 {shown})"; {asking}'],
        capture_output=True, text=True, check=True, env=environment, timeout=patient(COMMAND_SECONDS_MAX),
    )  # fmt: skip
    assert said.stdout.split() == ["wait"], said.stderr


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("TINYFAT_SMTPLISTEN", "TINYFAT_SMTP_LISTEN"),
        ("TINYFAT_SMARTHOSTS", "TINYFAT_SMARTHOST"),
        ("TINYFAT_DOMIAN", "TINYFAT_DOMAIN"),
        ("TINYFAT_COLOUR_OF_THE_SKY", "docs/settings.md"),
    ],
)
def test_a_variable_that_is_no_setting_is_named_with_the_nearest(name: str, meant: str) -> None:
    [sentence] = unknown([name, "PATH", "TINYFAT_HOME", "TINYFAT_CACHE"], Settings.model_fields)
    assert sentence.startswith(name) and meant in sentence
