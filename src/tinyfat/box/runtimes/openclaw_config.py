"""The configuration and the environment of one OpenClaw gateway (2026.9.6). Pure.

Keys are OpenClaw's own (its docs/gateway/configuration-reference.md). An unknown key makes it exit with 78.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tinyfat.domain.link import ModelAccess

PROVIDER = "host"
MODEL_KEY_VARIABLE = "TINYFAT_MODEL_KEY"
GATEWAY_TOKEN_VARIABLE = "OPENCLAW_GATEWAY_TOKEN"  # noqa: S105 - the name of a variable
RUN_SECONDS_MAX = 1800  # of one turn where its deadline does not say less
CONTEXT_TOKENS = 128_000
ANSWER_TOKENS_MAX = 8192
# They wait for a person at a screen, or change the gateway itself. A mail has neither.
TOOLS_DENIED = (
    "ask_user",
    "dashboard",
    "gateway",
    "github_identity_status",
    "plugins",
    "portal",
    "progress_card",
    "secrets",
    "terminal",
    "theme",
)


def lock_folder(user: int) -> Path:
    """Where it locks its state's database, whatever TMPDIR says: it does not start where it cannot write there."""
    return Path(f"/tmp/openclaw-state-locks-{user}")  # noqa: S108


def configuration(model: ModelAccess, state: Path, workspace: Path, port: int) -> dict[str, Any]:
    """The contents of openclaw.json. It names keys by variable and holds none."""
    return {
        "gateway": {
            "mode": "local",
            "bind": "loopback",  # always said: in what it takes for a container its default is every interface
            "port": port,
            "auth": {"mode": "token", "token": _variable(GATEWAY_TOKEN_VARIABLE)},
            "controlUi": {"enabled": False},
        },
        # By default its log stands in /tmp, shared by every gateway of the host.
        "logging": {"level": "info", "file": str(state / "log" / "openclaw.log")},
        "update": {"checkOnStart": False},
        "discovery": {"mdns": {"mode": "off"}},
        "browser": {"enabled": False},
        "session": {"dmScope": "per-channel-peer"},
        "tools": {
            "profile": "coding",
            "deny": list(TOOLS_DENIED),
            "loopDetection": {"enabled": True},
            "fs": {"workspaceOnly": True},
            "elevated": {"enabled": False},
        },
        "skills": {"allowBundled": ["weather"]},  # the others are for chat and for OpenClaw's own upkeep
        "agents": {
            "defaults": {
                "workspace": str(workspace),
                "skipBootstrap": True,
                "timeoutSeconds": RUN_SECONDS_MAX,
                "heartbeat": {"every": "0m"},  # on by default: a model call every half hour for nothing
                "model": {"primary": f"{PROVIDER}/{model.model}"},
            }
        },
        "plugins": {
            "allow": ["memory-core"],
            "entries": {"memory-core": {"config": {"dreaming": {"enabled": False}}}},
        },
        "models": {
            "mode": "replace",
            "catalogRefresh": {"enabled": False},
            "providers": {PROVIDER: _provider(model)},
        },
    }


def _provider(model: ModelAccess) -> dict[str, Any]:
    free = {"input": 0, "output": 0, "cacheRead": 0, "cacheWrite": 0}  # what it costs is counted elsewhere
    return {
        "baseUrl": model.url,
        "apiKey": _variable(MODEL_KEY_VARIABLE),
        "api": model.api,
        "models": [
            {
                "id": model.model,
                "name": model.model,
                "reasoning": False,
                "input": ["text", "image"],
                "contextWindow": CONTEXT_TOKENS,
                "maxTokens": ANSWER_TOKENS_MAX,
                "cost": free,
                # Each chat completion says its session: so the box can tell whose it is (gateway_sessions).
                "compat": {"sendSessionAffinityHeaders": True},
            }
        ],
    }


def environment(
    model: ModelAccess, state: Path, *, token: str, path: str, compile_cache: Path, passed_on: Mapping[str, str]
) -> dict[str, str]:
    """The whole environment of the gateway. `passed_on`: what of the box's own it needs to reach the network."""
    home = state / "home"
    return {
        **passed_on,
        "HOME": str(home),
        "PATH": path,
        "TMPDIR": str(state / "tmp"),
        "OPENCLAW_HOME": str(home),
        "OPENCLAW_STATE_DIR": str(state),
        "OPENCLAW_CONFIG_PATH": str(state / "openclaw.json"),
        "OPENCLAW_CONFIG_READONLY": "1",
        "OPENCLAW_DISABLE_BONJOUR": "1",
        "OPENCLAW_EXEC_SHELL_SNAPSHOT": "0",
        "OPENCLAW_NO_AUTO_UPDATE": "1",
        "OPENCLAW_NO_RESPAWN": "1",
        "OPENCLAW_OFFLINE": "1",  # no downloads of helper programs
        "OPENCLAW_SKIP_CHANNELS": "1",
        GATEWAY_TOKEN_VARIABLE: token,
        MODEL_KEY_VARIABLE: model.key,
        "NODE_COMPILE_CACHE": str(compile_cache),
        # Without it the launcher starts a second node, to move the cache to a folder of its own choice.
        "OPENCLAW_PACKAGED_COMPILE_CACHE_RESPAWNED": "1",
    }


def _variable(name: str) -> str:
    return "${" + name + "}"
