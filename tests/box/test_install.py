from __future__ import annotations

import asyncio
import fcntl
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tinyfat.box.runtime import InstallFailed
from tinyfat.box.runtimes import install
from tinyfat.box.runtimes.install import Package


def lock(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((install.LOCKS / name / "package-lock.json").read_text())
    return loaded


@pytest.fixture
def empty(tmp_path: Path) -> Package:
    """A package that npm installs from nothing, without a network."""
    return write_package(tmp_path / "lock", {})


def write_package(folder: Path, dependencies: dict[str, str]) -> Package:
    folder.mkdir()
    manifest = {"name": "nothing", "version": "1.0.0", "dependencies": dependencies}
    packages: dict[str, Any] = {"": manifest}
    for name, version in dependencies.items():
        packages[f"node_modules/{name}"] = {"version": version, "integrity": "sha512-AAAA"}
    (folder / "package.json").write_text(json.dumps(manifest))
    (folder / "package-lock.json").write_text(json.dumps({**manifest, "lockfileVersion": 3, "packages": packages}))
    return Package("nothing", "nothing", "1.0.0", folder, 1)


@pytest.mark.parametrize("name", ["openclaw", "pi"])
def test_every_package_is_pinned_by_its_content_and_by_no_host(name: str) -> None:
    packages = lock(name)["packages"]

    unpinned = [
        path for path, entry in packages.items() if path and "integrity" not in entry and not entry.get("inBundle")
    ]
    assert unpinned == []
    assert not any("resolved" in entry for entry in packages.values())
    assert packages[f"node_modules/{install.package(name).npm_name}"]["version"] == install.package(name).version


def test_the_lock_holds_what_each_platform_needs() -> None:
    packages = lock("openclaw")["packages"]

    for platform in ("darwin-arm64", "darwin-x64", "linux-arm64", "linux-x64"):
        assert f"node_modules/@lydell/node-pty-{platform}" in packages


def test_the_folder_changes_with_the_lock_file(tmp_path: Path) -> None:
    one = write_package(tmp_path / "one", {})
    other = write_package(tmp_path / "other", {"left-pad": "1.3.0"})

    assert one.installed_name.startswith("nothing-1.0.0-")
    assert one.installed_name != other.installed_name


def test_npm_gets_no_key_of_ours() -> None:
    given = {"PATH": "/bin", "HOME": "/h", "npm_config_registry": "r", "https_proxy": "p", "OPENAI_API_KEY": "sk"}

    made = install.npm_environment(given, Path("/wheel"), Path("/cache"))

    assert made == {
        "PATH": "/wheel/bin:/bin",
        "HOME": "/h",
        "npm_config_registry": "r",
        "https_proxy": "p",
        "npm_config_cache": "/cache",
        "npm_config_update_notifier": "false",
        "npm_config_color": "false",
        "npm_config_loglevel": "error",
    }


async def test_several_boxes_at_once_install_once(empty: Package, tmp_path: Path) -> None:
    lines: list[str] = []
    shared = tmp_path / "shared"

    targets = await asyncio.gather(*(install.install(empty, shared, lines.append) for _ in range(3)))

    assert set(targets) == {shared / empty.installed_name}
    assert (targets[0] / "package-lock.json").is_file()
    # One installed; the others waited and found it there.
    assert any("installing" in line for line in lines)
    assert len([line for line in lines if "waiting for another box" in line]) >= 2
    leftovers = {path.name for path in shared.iterdir()} - {empty.installed_name}
    assert leftovers == {f".{empty.installed_name}.lock"}


async def test_what_a_killed_installation_left_is_cleared_away(empty: Package, tmp_path: Path) -> None:
    partial = tmp_path / "shared" / f".{empty.installed_name}.partial"
    (partial / "node_modules" / "half").mkdir(parents=True)

    target = await install.install(empty, tmp_path / "shared", lambda _: None)

    assert not partial.exists()
    assert not (target / "node_modules" / "half").exists()


async def test_a_failure_shows_npms_last_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("npm_config_registry", "http://127.0.0.1:9/")  # nobody is there
    monkeypatch.setenv("npm_config_fetch_retries", "0")
    wanted = write_package(tmp_path / "lock", {"left-pad": "1.3.0"})

    with pytest.raises(InstallFailed, match="ECONNREFUSED"):
        await install.install(wanted, tmp_path / "shared", lambda _: None)

    assert not wanted.installed_in(tmp_path / "shared").exists()


async def test_too_little_room_is_said_before_anything_is_fetched(empty: Package, tmp_path: Path) -> None:
    greedy = Package(empty.name, empty.npm_name, empty.version, empty.folder, 2**62)

    with pytest.raises(InstallFailed, match="make room"):
        await install.install(greedy, tmp_path / "shared", lambda _: None)


async def test_the_wait_has_an_end(empty: Package, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(install, "INSTALL_SECONDS_MAX", 0.3)
    shared = tmp_path / "shared"
    shared.mkdir()
    with (shared / f".{empty.installed_name}.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(InstallFailed, match="not installed within"):
            await install.install(empty, shared, lambda _: None)


def test_the_command_says_where_it_put_it(
    empty: Package, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(install, "package", lambda name: empty)

    assert install.main(["pi", "--shared", str(tmp_path / "shared")]) == 0
    assert (
        capsys.readouterr().out.splitlines()[-1] == f"nothing 1.0.0 is in {tmp_path / 'shared'}/{empty.installed_name}"
    )


def test_the_default_folder_is_the_users_cache() -> None:
    assert install.shared_default({"HOME": "/home/eva"}) == Path("/home/eva/.cache/tinyfat/runtimes")
    assert install.shared_default({"HOME": "/h", "XDG_CACHE_HOME": "/c"}) == Path("/c/tinyfat/runtimes")


@pytest.mark.parametrize(("program", "installed"), [("require('fs').writeFileSync(__dirname + '/done', '')", True),
                                                    ("throw new Error('not so')", False)])  # fmt: skip
async def test_what_a_package_writes_at_its_first_start_is_there(
    empty: Package, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str, installed: bool
) -> None:
    """Whoever runs it may not write there."""

    async def npm_ci(work: Path, *_: object) -> None:
        (work / "node_modules/nothing").mkdir(parents=True)
        (work / "node_modules/nothing/run.js").write_text(program)

    monkeypatch.setattr(install, "_npm_ci", npm_ci)
    wanted = replace(empty, first_run=("run.js", "--version"))
    if not installed:
        with pytest.raises(InstallFailed, match="not so"):
            await install.install(wanted, tmp_path / "shared", lambda _: None)
    else:
        await install.install(wanted, tmp_path / "shared", lambda _: None)
    assert wanted.installed_in(tmp_path / "shared").exists() is installed
    assert (wanted.root(tmp_path / "shared") / "done").exists() is installed
