from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from tinyfat.box.runtime import Places, RuntimeUnavailable
from tinyfat.box.runtimes import install, openclaw_config
from tinyfat.box.runtimes.openclaw import OpenClawRuntime
from tinyfat.domain.link import ModelAccess, RuntimeSpec
from tinyfat.domain.turns import Turn

MODEL = ModelAccess("openai-completions", "http://127.0.0.1:9/v1", "sk-very-secret", "main")
SPEC = RuntimeSpec("openclaw", "ada", MODEL, 2**31)


def test_the_configuration_is_this() -> None:
    made = openclaw_config.configuration(MODEL, Path("/s"), Path("/w"), 18789)

    assert made == {
        "gateway": {
            "mode": "local",
            "bind": "loopback",
            "port": 18789,
            "auth": {"mode": "token", "token": "${OPENCLAW_GATEWAY_TOKEN}"},
            "controlUi": {"enabled": False},
        },
        "logging": {"level": "info", "file": "/s/log/openclaw.log"},
        "update": {"checkOnStart": False},
        "discovery": {"mdns": {"mode": "off"}},
        "browser": {"enabled": False},
        "session": {"dmScope": "per-channel-peer"},
        "tools": {
            "profile": "coding",
            "deny": [
                *("ask_user", "dashboard", "gateway", "github_identity_status", "plugins", "portal", "progress_card"),
                *("secrets", "terminal", "theme"),
            ],
            "loopDetection": {"enabled": True},
            "fs": {"workspaceOnly": True},
            "elevated": {"enabled": False},
        },
        "skills": {"allowBundled": ["weather"]},
        "agents": {
            "defaults": {
                "workspace": "/w",
                "skipBootstrap": True,
                "timeoutSeconds": 1800,
                "heartbeat": {"every": "0m"},
                "model": {"primary": "host/main"},
            }
        },
        "plugins": {
            "allow": ["memory-core"],
            "entries": {"memory-core": {"config": {"dreaming": {"enabled": False}}}},
        },
        "models": {
            "mode": "replace",
            "catalogRefresh": {"enabled": False},
            "providers": {
                "host": {
                    "baseUrl": "http://127.0.0.1:9/v1",
                    "apiKey": "${TINYFAT_MODEL_KEY}",
                    "api": "openai-completions",
                    "models": [
                        {
                            "id": "main",
                            "name": "main",
                            "reasoning": False,
                            "input": ["text", "image"],
                            "contextWindow": 128000,
                            "maxTokens": 8192,
                            "cost": {"input": 0, "output": 0, "cacheRead": 0, "cacheWrite": 0},
                            "compat": {"sendSessionAffinityHeaders": True},
                        }
                    ],
                }
            },
        },
    }


def test_the_environment_is_whole_and_holds_the_keys() -> None:
    made = openclaw_config.environment(
        MODEL, Path("/s"), token="t", path="/bin", compile_cache=Path("/c"), passed_on={"TZ": "UTC"}
    )

    assert made == {
        "TZ": "UTC",
        "HOME": "/s/home",
        "PATH": "/bin",
        "TMPDIR": "/s/tmp",
        "OPENCLAW_HOME": "/s/home",
        "OPENCLAW_STATE_DIR": "/s",
        "OPENCLAW_CONFIG_PATH": "/s/openclaw.json",
        "OPENCLAW_CONFIG_READONLY": "1",
        "OPENCLAW_DISABLE_BONJOUR": "1",
        "OPENCLAW_EXEC_SHELL_SNAPSHOT": "0",
        "OPENCLAW_NO_AUTO_UPDATE": "1",
        "OPENCLAW_NO_RESPAWN": "1",
        "OPENCLAW_OFFLINE": "1",
        "OPENCLAW_SKIP_CHANNELS": "1",
        "OPENCLAW_GATEWAY_TOKEN": "t",
        "TINYFAT_MODEL_KEY": "sk-very-secret",
        "NODE_COMPILE_CACHE": "/c",
        "OPENCLAW_PACKAGED_COMPILE_CACHE_RESPAWNED": "1",
    }


@pytest.fixture
def places(tmp_path: Path) -> Places:
    return Places(tmp_path / "state", tmp_path / "workspace", tmp_path / "shared")


def test_a_command_is_ready_to_run_and_shows_no_key(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "of the operator")
    first, second = (OpenClawRuntime(SPEC, places).command() for _ in range(2))

    assert first.argv[0] == str(install.node())
    assert first.argv[-4:-1] == ("gateway", "run", "--port")
    assert first.fatal_exits == {78}
    assert "sk-very-secret" not in " ".join(first.argv)
    assert first.environment["TINYFAT_MODEL_KEY"] == "sk-very-secret"
    assert "AWS_SECRET_ACCESS_KEY" not in first.environment
    assert first.environment["OPENCLAW_GATEWAY_TOKEN"] != second.environment["OPENCLAW_GATEWAY_TOKEN"]


def test_the_files_are_the_agents_own(places: Places) -> None:
    command = OpenClawRuntime(SPEC, places).command()

    written = places.state / "openclaw.json"
    assert stat.S_IMODE(written.stat().st_mode) == 0o600
    assert stat.S_IMODE(places.state.stat().st_mode) == 0o700
    assert "sk-very-secret" not in written.read_text()
    assert json.loads(written.read_text())["gateway"]["port"] == int(command.argv[-1])
    assert (places.workspace / "AGENTS.md").read_text().startswith("# ada\n")


def test_what_the_agent_wrote_into_its_notes_stays(places: Places) -> None:
    places.workspace.mkdir()
    (places.workspace / "AGENTS.md").write_text("mine")

    OpenClawRuntime(SPEC, places).command()

    assert (places.workspace / "AGENTS.md").read_text() == "mine"


async def test_before_its_start_it_is_neither_live_nor_asked(places: Places) -> None:
    runtime = OpenClawRuntime(SPEC, places)

    assert not await runtime.live()
    with pytest.raises(RuntimeUnavailable):
        await runtime.answer(Turn("t", "s", "hi", 1.0), False)
    runtime.command()
    assert not await runtime.ready()  # nobody listens there
