"""What exists has its paragraph: every setting, command, flow, library and decision."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
import typer

from tinyfat.cli.main import app
from tinyfat.settings import Settings

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"


@pytest.mark.parametrize("name", sorted(Settings.model_fields))
def test_every_setting_is_explained(name: str) -> None:
    assert f"| `TINYFAT_{name.upper()}` |" in (DOCS / "settings.md").read_text()


def test_no_setting_is_explained_that_does_not_exist() -> None:
    explained = set(re.findall(r"\| `TINYFAT_(\w+)` \|", (DOCS / "settings.md").read_text()))
    assert explained == {name.upper() for name in Settings.model_fields}


def _commands() -> list[str]:
    root = typer.main.get_command(app)
    found: list[str] = []
    for name, command in root.commands.items():  # type: ignore[attr-defined]
        inner = getattr(command, "commands", None)
        found += [f"{name} {sub}" for sub in inner] if inner else [name]
    return found


@pytest.mark.parametrize("command", _commands())
def test_every_command_is_explained(command: str) -> None:
    assert re.search(rf"`tinyfat {command}( [^`]*)?`", (DOCS / "cli.md").read_text())


@pytest.mark.parametrize(
    "flow", sorted(p.stem for p in (ROOT / "src/tinyfat/flows").glob("*.py") if p.stem != "__init__")
)
def test_every_flow_is_in_the_architecture(flow: str) -> None:
    assert re.search(rf"\b{flow}\b", (DOCS / "architecture.md").read_text())


def _libraries() -> list[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [
        *project["dependencies"],
        *(line for extra in project["optional-dependencies"].values() for line in extra),
    ]
    return sorted({re.split(r"[\[<>=; ]", line)[0] for line in wanted} - {"types-psutil"})


@pytest.mark.parametrize("library", _libraries())
def test_every_library_has_its_reason(library: str) -> None:
    assert library in (DOCS / "architecture.md").read_text()


def test_links_between_documents_lead_somewhere() -> None:
    for document in [ROOT / "README.md", *DOCS.rglob("*.md")]:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", document.read_text()):
            assert (document.parent / target).exists(), f"{document.name} -> {target}"


def test_lock_files_name_no_host() -> None:
    locks = [*(ROOT / "requirements").glob("*.txt"), *(ROOT / "src").rglob("package-lock.json")]
    assert locks
    for lock in locks:
        text = lock.read_text()
        assert "--index-url" not in text and "resolved" not in text and "file:" not in text, lock.name
