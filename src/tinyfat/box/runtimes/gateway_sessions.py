"""Whose model call it is: from the id a gateway says with the call to the session it was asked under.

With `compat.sendSessionAffinityHeaders` OpenClaw 2026.9.6 says `x-session-affinity: ID:N` with each chat completion; on
Anthropic's own API it does not. `sessions.resolve` tells an id's key, which is ours in small letters behind
`agent:main:`; of a sub-agent's session, `sessions.describe` tells who spawned it.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Sequence

from tinyfat.box.runtimes.gateway_connection import GatewayConnection

KNOWN_MAX = 1000  # sessions
SPAWNED_DEPTH_MAX = 4
ID_CHARS_MAX = 100
ASK_SECONDS_MAX = 2.0  # a model call waits for it
_KEY_HEAD = "agent:main:"


class GatewaySessions:
    def __init__(self) -> None:
        self._known: OrderedDict[str, tuple[str, ...]] = OrderedDict()

    async def find(self, connection: GatewayConnection, said: str, running: Sequence[str]) -> str:
        """That of `running`, or empty. Raises TimeoutError, GatewayRefused, RuntimeUnavailable."""
        session_id = said.partition(":")[0]
        if not session_id or len(session_id) > ID_CHARS_MAX:
            return ""
        line = self._known.get(session_id)
        if line is None:
            async with asyncio.timeout(ASK_SECONDS_MAX):
                line = await _line(connection, session_id)
            self._remember(session_id, line)
        ours = {f"{_KEY_HEAD}{session}".casefold(): session for session in running}
        return next((ours[key] for key in line if key in ours), "")

    def _remember(self, session_id: str, line: tuple[str, ...]) -> None:
        if line:
            self._known[session_id] = line
        if len(self._known) > KNOWN_MAX:
            self._known.popitem(last=False)


async def _line(connection: GatewayConnection, session_id: str) -> tuple[str, ...]:
    """The session's key, who spawned it, who spawned that one; empty where the gateway knows none of this id."""
    asked = {"sessionId": session_id, "allowMissing": True}
    key = (await connection.call("sessions.resolve", asked)).get("key")
    line: list[str] = []
    while isinstance(key, str) and key and key.casefold() not in line:
        line.append(key.casefold())
        if ":subagent:" not in key or len(line) > SPAWNED_DEPTH_MAX:
            break
        described = (await connection.call("sessions.describe", {"key": key})).get("session")
        key = described.get("spawnedBy") if isinstance(described, dict) else None
    return tuple(line)
