"""Machines that are containers of a Docker or Podman engine, here or elsewhere: the box, and nothing else.

Its identity goes in as a file, before its first start: neither its command line nor its environment, which the engine
shows to whoever may ask it, holds a secret.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from typing import Any

from tinyfat.domain.enrolment import (
    BOX_FOLDER,
    BOX_STATE_FOLDER,
    BOX_USER,
    CURRENT,
    NODE_FOLDER,
    NODE_VARIABLE,
    RUNTIMES_FOLDER,
    STATE_FOLDER,
)
from tinyfat.domain.machines import MachineOrder, MachineSeen, MachineState
from tinyfat.drivers.machines.docker_engine import DockerEngine, NotThere
from tinyfat.ports.machines import MachineRefused

REPOSITORY = "tinyfat"
MEMORY_BYTES = 4 * 1024**3
PROCESSES_MAX = 4096
FORCE_SECONDS = 30.0  # asked to stop this long ago and still running: it is killed
USER_LABEL = "org.tinyfat.user"  # of the image: the numbers UID:GID of BOX_USER in it
MACHINE_LABEL = "org.tinyfat.machine"
# Process 1 of a container ignores every signal it has no handler for, and Python takes a moment to have one; so a shell
# is first, hands SIGTERM on, and reaps what the runtime's commands leave behind.
_FIRST = """
"$@" & box=$!
trap 'kill -TERM "$box"' TERM
wait "$box"; code=$?
while kill -0 "$box" 2>/dev/null; do wait "$box"; code=$?; done
exit "$code"
"""
_BOX_FILE = f"{BOX_STATE_FOLDER}/box.json"
_STATES = {
    "created": MachineState.STOPPED,
    "exited": MachineState.STOPPED,
    "dead": MachineState.STOPPED,
    "running": MachineState.RUNNING,
    "restarting": MachineState.RUNNING,
    "paused": MachineState.RUNNING,
}


class DockerMachines:
    """Implements ports/machines Machines."""

    def __init__(
        self,
        engine: DockerEngine,
        image: str,
        monotonic: Callable[[], float],
        *,
        network: str = "bridge",
        memory_bytes: int = MEMORY_BYTES,
        month_price: int = 0,
    ) -> None:
        """`image`: its tag in REPOSITORY; `network`: the engine's, from which the control plane can be reached."""
        self._engine, self._image, self._monotonic = engine, f"{REPOSITORY}:{image}", monotonic
        self._network, self._memory_bytes, self.month_price = network, memory_bytes, month_price
        self._asked_to_stop: dict[str, float] = {}

    async def start(self, order: MachineOrder) -> None:
        """Another order for the same machine: the box begins anew. Raises MachineRefused, MachinesUnreachable."""
        name, wanted = _name(order.id), box_file(order)
        self._asked_to_stop.pop(order.id, None)
        seen = await self._engine.container(name)
        if seen is None:
            await self._make(order, name)
        if seen is None or await self._engine.file(name, _BOX_FILE) != wanted:
            await self._engine.signal(name, "SIGKILL")
            await self._engine.put(name, "/var/lib", identity_tar(wanted, *await self._user()))
        await self._engine.start(name)

    async def look(self, machine_id: str) -> MachineSeen:
        seen = await self._engine.container(_name(machine_id))
        if seen is None:
            return MachineSeen(MachineState.GONE)
        status = str(seen.get("State", {}).get("Status", ""))
        return MachineSeen(_STATES.get(status, MachineState.UNKNOWN), f"the engine says {status or 'nothing'}")

    async def stop(self, machine_id: str) -> None:
        """SIGTERM; when that was FORCE_SECONDS ago, SIGKILL."""
        first = self._asked_to_stop.setdefault(machine_id, self._monotonic())
        late = self._monotonic() - first > FORCE_SECONDS
        await self._engine.signal(_name(machine_id), "SIGKILL" if late else "SIGTERM")

    async def delete(self, machine_id: str) -> None:
        self._asked_to_stop.pop(machine_id, None)
        await self._engine.remove(_name(machine_id))

    async def _make(self, order: MachineOrder, name: str) -> None:
        body = container_body(order, self._image, self._network, self._memory_bytes)
        try:
            await self._engine.create(name, body)
        except NotThere as error:
            raise MachineRefused(
                f"The engine at {self._engine.url} has no image {self._image} for {order.agent_name or order.id}: "
                "tinyfat image build --driver docker makes it."
            ) from error

    async def _user(self) -> tuple[int, int]:
        image = await self._engine.image(self._image)
        labels = ((image or {}).get("Config") or {}).get("Labels") or {}
        user, _, group = str(labels.get(USER_LABEL, "")).partition(":")
        if not (user.isdigit() and group.isdigit()):
            raise MachineRefused(f"{self._image} is no image of ours: tinyfat image build --driver docker makes one.")
        return int(user), int(group)


def container_body(order: MachineOrder, image: str, network: str, memory_bytes: int) -> dict[str, Any]:
    """No capability, no way to get one, a limit to its memory and processes; it comes back when the engine does."""
    return {
        "Image": image,
        "User": BOX_USER,
        "WorkingDir": STATE_FOLDER,
        "Cmd": ["/bin/sh", "-c", _FIRST, "sh", "/usr/bin/python3", "-m", "tinyfat.box", "--folder", BOX_STATE_FOLDER],
        "Env": [
            f"PYTHONPATH={BOX_FOLDER}/{CURRENT}",
            f"{NODE_VARIABLE}={NODE_FOLDER}/{CURRENT}",
            f"HOME={STATE_FOLDER}",
            "PYTHONUNBUFFERED=1",
            "PATH=/usr/local/bin:/usr/bin:/bin",
        ],
        "Labels": {MACHINE_LABEL: order.id},
        "StopSignal": "SIGTERM",
        "HostConfig": {
            "Memory": memory_bytes,
            "MemorySwap": memory_bytes,
            "PidsLimit": PROCESSES_MAX,
            "CapDrop": ["ALL"],
            "SecurityOpt": ["no-new-privileges"],
            "NetworkMode": network,
            "RestartPolicy": {"Name": "unless-stopped"},
            "LogConfig": {"Type": "json-file", "Config": {"max-size": "10m", "max-file": "2"}},
        },
    }


def box_file(order: MachineOrder) -> bytes:
    said = {
        "machine_id": order.id,
        "agent_name": order.agent_name,
        "runtime": order.runtime,
        "link_url": order.link_url,
        "link_token": order.link_token,
        "shared_folder": RUNTIMES_FOLDER,
    }
    return json.dumps(said, indent=1).encode()


def identity_tar(box_json: bytes, user: int, group: int) -> bytes:
    """The box's folder and its identity, to be unpacked in /var/lib."""
    raw = io.BytesIO()
    state = STATE_FOLDER.removeprefix("/var/lib/")
    box = BOX_STATE_FOLDER.removeprefix("/var/lib/")
    with tarfile.open(fileobj=raw, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for path, mode, content in ((state, 0o755, None), (box, 0o700, None), (f"{box}/box.json", 0o600, box_json)):
            entry = tarfile.TarInfo(path)
            entry.uid, entry.gid, entry.mode = user, group, mode
            entry.type = tarfile.DIRTYPE if content is None else tarfile.REGTYPE
            entry.size = len(content or b"")
            tar.addfile(entry, io.BytesIO(content) if content is not None else None)
    return raw.getvalue()


def _name(machine_id: str) -> str:
    return f"tinyfat-{machine_id}"
