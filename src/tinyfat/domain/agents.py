"""An agent: a name, an address, an owner. What it runs on is in `machines`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

# RFC 1035 2.3.1 and RFC 1123 2.1: a label is 1 to 63 letters, digits and inner hyphens.
_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")

# RFC 2142 mailboxes, names a domain's own machinery answers to, and names that would pass for the operator.
_RESERVED = """
    abuse admin administrator api app autoconfig autodiscover billing bounce bounces cdn daemon dns ftp help hostmaster
    imap info localhost mail mailer-daemon marketing mta-sts noc no-reply nobody noreply ns ns1 ns2 pop postmaster relay
    root sales security smtp ssh ssl staff status support sysadmin system tinyfat usenet uucp web webmail webmaster www
"""
RESERVED_NAMES = frozenset(_RESERVED.split())


class NameRefused(ValueError):
    """This name cannot be an agent's."""


class AgentState(StrEnum):
    CREATING = "creating"
    READY = "ready"  # a real question came back through its real path
    FAILED = "failed"
    DESTROYING = "destroying"
    DESTROYED = "destroyed"


class Plan(StrEnum):
    """What an agent lives on."""

    FAT = "fat"  # a server of its own


class RuntimeKind(StrEnum):
    OPENCLAW = "openclaw"
    PI = "pi"
    ECHO = "echo"


@dataclass(frozen=True, slots=True)
class Place:
    """What its server is to be like; "": as the operator has it."""

    plan: str = ""
    location: str = ""
    image: str = ""
    size: str = ""


ANYWHERE = Place()


@dataclass(frozen=True, slots=True)
class Agent:
    id: str
    name: str
    owner: str  # the owner's address, lower case
    runtime: RuntimeKind
    machine_kind: str
    state: AgentState
    reason: str  # why it failed; empty otherwise
    created_at: datetime
    plan: str = ""
    location: str = ""  # where its server is to be; "": the operator's choice
    image: str = ""  # what its server is made from; "": the operator's setting
    size: str = ""  # the provider's word; "": the operator's setting
    address_id: str = ""  # of its server's address: its own id, or that of the pool's machine it was given
    moving: bool = False  # between two machines: its turns wait
    replacing: int = 1  # the newest number given to one of its machines
    published: bool = False  # its public folder is served at https://NAME.DOMAIN


def agent_name(text: str) -> str:
    """The name, case folded; NameRefused says why where it cannot be one."""
    name = text.strip().lower()
    if not _LABEL.fullmatch(name):
        raise NameRefused(
            f"{text!r} cannot be an agent's name: use 1 to 63 letters a-z, digits and hyphens, "
            "with no hyphen at either end."
        )
    if name.startswith("xn--"):
        raise NameRefused(f"{name!r} cannot be an agent's name: xn-- is kept for encoded names (RFC 5891).")
    if name in RESERVED_NAMES:
        raise NameRefused(f"{name!r} is reserved; choose another name.")
    return name
