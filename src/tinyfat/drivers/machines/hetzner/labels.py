"""How a thing at Hetzner says whose it is: names made from our ids, labels beside them. Pure.

Names are unique in a project, so an order that is made twice is refused the second time; labels are what we search by.
A label's value has up to 63 letters, digits, dashes, underscores and dots, the first and last of them no sign
(docs.hetzner.cloud, "Labels").
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from tinyfat.ports.machines import MachineRefused

INSTALLATION = "tinyfat.installation"
MACHINE = "tinyfat.machine"
AGENT = "tinyfat.agent"
ADDRESS = "tinyfat.address"
IMAGE = "tinyfat.image"  # of a snapshot: its name; of a server: the image that it is there to make or to try
PASSING = "tinyfat.passing"  # an address that came with this machine and is to go, another having taken its place
MANAGED_BY = "managed-by"

_VALUE = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")


def value(text: str, what: str) -> str:
    """Raises MachineRefused where `text` cannot be a label's value."""
    if not _VALUE.fullmatch(text):
        raise MachineRefused(f"{text!r} cannot be {what} at Hetzner: 1 to 63 letters, digits, and inner . _ -")
    return text


@dataclass(frozen=True, slots=True)
class Labels:
    """Of one installation of TinyFat. Several may share a project."""

    installation: str

    def ours(self, labels: Mapping[str, str]) -> bool:
        return labels.get(INSTALLATION) == self.installation

    def all_of(self, **more: str) -> dict[str, str]:
        """`machine`, `agent`, `address`, `image`; what is "" is left out."""
        keys = {"machine": MACHINE, "agent": AGENT, "address": ADDRESS, "image": IMAGE}
        chosen = {keys[key]: value(text, f"the {key}") for key, text in more.items() if text}
        return {INSTALLATION: value(self.installation, "the installation"), MANAGED_BY: "tinyfat", **chosen}

    def selector(self, key: str = "", text: str = "") -> str:
        mine = f"{INSTALLATION}=={self.installation}"
        return f"{mine},{key}=={value(text, 'an id')}" if key else mine


def server_name(machine_id: str) -> str:
    return value(f"tinyfat-{machine_id}", "a server's name")


def address_name(address_id: str, kind: str) -> str:
    """`kind`: "ipv4" or "ipv6"."""
    return f"tinyfat-{value(address_id, 'an address')}-{kind}"
