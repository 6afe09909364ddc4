"""What is said to a running QEMU: its QMP, over a socket of the file system.

https://www.qemu.org/docs/master/interop/qmp-spec.html
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tinyfat.machine_hosts.machine_host import HostFailed

ANSWER_SECONDS_MAX = 10.0
LINES_MAX = 1000  # events that come between a command and its answer
LINE_BYTES_MAX = 1024 * 1024


async def ask(socket: Path, command: str, arguments: Mapping[str, Any] | None = None) -> Any:
    """The answer's `return`. Raises HostFailed, also where nobody answers."""
    folder = -1
    try:
        folder = os.open(socket.parent, os.O_PATH | os.O_DIRECTORY)
        async with asyncio.timeout(ANSWER_SECONDS_MAX):
            # A socket's path has 107 characters at most, a home's may have more.
            path = f"/proc/self/fd/{folder}/{socket.name}"
            reader, writer = await asyncio.open_unix_connection(path, limit=LINE_BYTES_MAX)
            try:
                await reader.readline()  # the greeting
                await _answer(reader, writer, {"execute": "qmp_capabilities"})
                return await _answer(reader, writer, {"execute": command, "arguments": dict(arguments or {})})
            finally:
                writer.close()
    except (OSError, ValueError, TimeoutError) as error:
        raise HostFailed(f"QEMU does not answer {command} at {socket}: {error or type(error).__name__}") from error
    finally:
        if folder >= 0:
            os.close(folder)


async def monitor(socket: Path, line: str) -> str:
    """A line of the human monitor, for what QMP has no command for. What it prints is the error, if any."""
    return str(await ask(socket, "human-monitor-command", {"command-line": line})).strip()


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, said: Mapping[str, Any]) -> Any:
    writer.write(json.dumps(said).encode() + b"\n")
    await writer.drain()
    for _ in range(LINES_MAX):
        line = await reader.readline()
        if not line:
            return None  # it ended, as it was told to
        body = json.loads(line)
        if "error" in body:
            raise HostFailed(f"QEMU refused {said['execute']}: {body['error'].get('desc', body['error'])}")
        if "return" in body:
            return body["return"]
    raise HostFailed(f"QEMU sent {LINES_MAX} events and no answer to {said['execute']}.")
