"""What machines are made from: always the same for the same machine, so that ordering twice is ordering once."""

from __future__ import annotations

import hashlib
import hmac
import uuid
from collections.abc import Sequence
from dataclasses import dataclass

from tinyfat.domain.agents import Agent
from tinyfat.domain.enrolment import ENROLMENT_SECONDS_MAX
from tinyfat.domain.machines import Machine, MachineOrder, ServerOrder
from tinyfat.ports.machines import MachineRefused
from tinyfat.ports.server_ledger import NewServer

POOL_DOMAIN = "pool"  # NAME.pool.DOMAIN is what a machine is called before it is anybody's; no such name is in the DNS


@dataclass(frozen=True, slots=True)
class ServerTerms:
    """What every server of this installation is made from."""

    domain: str
    control_url: str  # https://HOST:PORT as machines reach it
    control_ca: str  # PEM; "": the system's
    link_url: str  # wss://HOST:PORT/box/link
    box_sha256: str
    ssh_ca: str  # public key, one line
    ssh_networks: tuple[str, ...] = ("0.0.0.0/0", "::/0")
    image: str = ""
    size: str = ""
    locations: tuple[str, ...] = ()  # in which order they are tried


class Orders:
    def __init__(self, secret: bytes, link_url: str, terms: ServerTerms | None = None) -> None:
        """`terms`: None where there are no servers."""
        self._secret = secret
        self._link_url = link_url
        self._terms = terms

    @property
    def terms(self) -> ServerTerms:
        """Raises MachineRefused."""
        if self._terms is None:
            raise MachineRefused(
                "Servers need to reach this control plane: set TINYFAT_BOX_LISTEN, then start `tinyfat up` again."
            )
        return self._terms

    def of(self, agent: Agent) -> MachineOrder:
        """Of a machine that is no server of its own."""
        machine_id = machine_id_of(agent.id)
        return MachineOrder(machine_id, agent.name, agent.runtime, self._link_url, self.token(machine_id))

    def for_server(
        self, machine: Machine, agent_name: str, owner_keys: Sequence[str] = (), published: bool = False
    ) -> MachineOrder:
        """`agent_name` "": for the warm pool. Raises MachineRefused."""
        terms = self.terms
        return MachineOrder(
            machine.id,
            agent_name,
            machine.runtime,
            terms.link_url,
            self.token(machine.id),
            ServerOrder(
                hostname=machine.hostname,
                control_url=terms.control_url,
                control_ca=terms.control_ca,
                enrolment_token=self.enrolment_token(machine.id),
                box_sha256=terms.box_sha256,
                ssh_ca=terms.ssh_ca,
                owner_keys=tuple(owner_keys),
                ssh_networks=terms.ssh_networks,
                published=published,
                address=machine.address_id,
                image=machine.image,
                size=machine.size,
                locations=(machine.location,) if machine.location else terms.locations,
            ),
        )

    def new_server(self, agent: Agent, generation: int = 1, address_id: str = "", current: bool = True) -> NewServer:
        """To be written down. `address_id` "": the agent's own. Raises MachineRefused."""
        machine_id = machine_id_of(agent.id, generation)
        return NewServer(
            machine_id,
            agent.id,
            agent.machine_kind,
            agent.runtime,
            self.hostname(agent),
            self.token_hash(machine_id),
            hash_token(self.enrolment_token(machine_id)),
            ENROLMENT_SECONDS_MAX,
            address_id or agent.address_id,
            agent.image or self.terms.image,
            agent.size or self.terms.size,
            agent.location,
            generation,
            current,
        )

    def new_for_pool(self, machine_id: str, kind: str, runtime: str, location: str) -> NewServer:
        """Its address has its own id. Raises MachineRefused."""
        return NewServer(
            machine_id,
            "",
            kind,
            runtime,
            f"m-{machine_id[:8]}.{POOL_DOMAIN}.{self.terms.domain}",
            self.token_hash(machine_id),
            hash_token(self.enrolment_token(machine_id)),
            ENROLMENT_SECONDS_MAX,
            machine_id,
            self.terms.image,
            self.terms.size,
            location,
        )

    def hostname(self, agent: Agent) -> str:
        return f"{agent.name}.{self.terms.domain}"

    def token(self, machine_id: str) -> str:
        """Of the link."""
        return self._derived("machine", machine_id)

    def token_hash(self, machine_id: str) -> bytes:
        return hash_token(self.token(machine_id))

    def enrolment_token(self, machine_id: str) -> str:
        return self._derived("enrolment", machine_id)

    def _derived(self, purpose: str, machine_id: str) -> str:
        return hmac.new(self._secret, f"{purpose} {machine_id}".encode(), hashlib.sha256).hexdigest()


def machine_id_of(agent_id: str, generation: int = 1) -> str:
    """Of the machine ordered for an agent. One from the warm pool keeps its own."""
    return str(uuid.uuid5(uuid.UUID(agent_id), "machine" if generation == 1 else f"machine {generation}"))


def hash_token(token: str) -> bytes:
    """How a machine's token is kept: it is 256 random-looking bits, so one round suffices."""
    return hashlib.sha256(token.encode("utf-8", "replace")).digest()
