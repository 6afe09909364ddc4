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
    abuse account accounts admin administrator alerts api app assets auth autoconfig autodiscover backup billing
    bounce bounces cdn cloud complaints compliance console contact contacts control cpanel daemon dashboard dkim
    dmarc dns download downloads drive email ftp gateway help helpdesk hostmaster id identity imap img info
    internal ipv4 ipv6 lists localdomain localhost login logout mail mailer mailer-daemon mailhost mailout
    mailserver marketing metrics monitor monitoring mta mta-sts mx my no-reply nobody noc noreply notifications ns
    oauth openid operator password pay payment payments pop portal postfix postmaster privacy proxy public
    register registrar relay remote root sales secure security server service services sftp signin signup
    smarthost smtp spam spf ssh ssl sso staff staging standin static stats status submission sudo support sysadmin
    system test tinyfat tls tlsrpt token unsubscribe update updates upload usenet uucp verify vpn web webdav
    webdisk webhook webhooks webmail webmaster whois wiki wpad www xmpp
"""
RESERVED_NAMES = frozenset(_RESERVED.split())
# Machines of a kind are numbered: mx1, ns-02, smtp10, www2.
_NUMBERED = re.compile(
    r"(?:dns|imap|mail|mailhost|mailout|mta|mx|ns|pop|relay|server|smtp|submission|vpn|web|www)-?[0-9]{1,4}"
)


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
    state_since: datetime
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
    if name in RESERVED_NAMES or _NUMBERED.fullmatch(name):
        raise NameRefused(f"{name!r} is reserved: a domain's own machinery has such names. Choose another name.")
    return name
