"""What is written down about a machine, beside it: so another process, after a crash, finds everything again."""

from __future__ import annotations

import json
import os
import re
import shutil
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path

from tinyfat.machine_hosts.machine_host import NAME_CHARS_MAX, HostAddress, HostFailed, HostOrder, HostRefused

RECORD = "machine.json"
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?")
_TRASH = ".trash-"


@dataclass(frozen=True, slots=True)
class Record:
    name: str
    image: str
    hostname: str
    memory_bytes: int
    created_at: datetime
    instance: str  # cloud-init's instance-id: another one each time a machine is made
    address: HostAddress
    own_address: bool  # it goes with the machine
    labels: Mapping[str, str] = field(default_factory=dict)
    published: bool = True  # port 443 is let through


def checked_name(name: str) -> str:
    """Raises HostRefused for what could not be a file's and a host's name."""
    if len(name) > NAME_CHARS_MAX or not _NAME.fullmatch(name):
        raise HostRefused(f"{name!r} cannot be a machine's name: a-z, 0-9, -, at most {NAME_CHARS_MAX} characters.")
    return name


class RecordFolder:
    """One folder a machine, its record inside."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def of(self, name: str) -> Path:
        return self.folder / checked_name(name)

    def names(self) -> list[str]:
        found = (file.parent.name for file in self.folder.glob(f"*/{RECORD}"))
        return sorted(name for name in found if not name.startswith(_TRASH))  # a glob shows hidden folders too

    def read(self, name: str) -> Record | None:
        file = self.of(name) / RECORD
        try:
            body = json.loads(file.read_text())
            body["created_at"] = datetime.fromisoformat(body["created_at"])
            body["address"] = read_address(body["address"])
            return Record(**body)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise HostFailed(f"{file} cannot be read: {error}. Remove its folder by hand.") from error

    def write(self, record: Record) -> None:
        file = self.of(record.name) / RECORD
        body = {**asdict(record), "created_at": record.created_at.isoformat(), "address": written(record.address)}
        write_private(file, json.dumps(body, indent=1))

    def make(self, order: HostOrder, address: HostAddress, at: datetime) -> Record:
        """The folder first and the record last: what has a record is whole. What a crash left without one goes."""
        folder = self.of(order.name)
        if folder.exists():
            self.discard(order.name)
        folder.mkdir(mode=0o700, parents=True)
        return Record(
            order.name, order.image, order.hostname, order.memory_bytes, at, f"{order.name}-{uuid.uuid4().hex[:12]}",
            address, order.address is None, dict(order.labels), order.published,
        )  # fmt: skip

    def discard(self, name: str) -> None:
        """Out of sight at once; `empty_trash` takes its time."""
        folder = self.of(name)
        if folder.exists():
            folder.rename(self.folder / f"{_TRASH}{name}-{uuid.uuid4().hex[:8]}")

    def empty_trash(self) -> None:
        for folder in self.folder.glob(f"{_TRASH}*"):
            shutil.rmtree(folder, ignore_errors=True)


def write_private(file: Path, text: str) -> None:
    """Whole or not at all, for its owner's eyes."""
    temporary = file.with_name(f".{file.name}.new")
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "w") as out:
        out.write(text)
    temporary.replace(file)


def written(address: HostAddress) -> dict[str, str | None]:
    at = address.leased_at.isoformat() if address.leased_at else None
    return {"ipv4": address.ipv4, "ipv6": address.ipv6, "leased_at": at}


def read_address(body: Mapping[str, str | None]) -> HostAddress:
    """Raises ValueError, KeyError, TypeError for what `written` did not write."""
    at = body["leased_at"]
    return HostAddress(body["ipv4"] or "", body["ipv6"] or "", datetime.fromisoformat(at) if at else None)
