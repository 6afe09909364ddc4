"""A project at our stand-in for Hetzner, and drivers that use it; the test sees behind both."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from decimal import Decimal

from tests.running import until
from tinyfat.domain.machines import MachineOrder, MachineState, ServerOrder
from tinyfat.drivers.hetzner_cloud import HetznerCloud
from tinyfat.drivers.machines.hetzner.servers import HetznerServers
from tinyfat.ports.machines import MachinesUnreachable
from tinyfat.standins.hetzner.cloud import Cloud, Options
from tinyfat.standins.hetzner.server import Standin, hetzner_app
from tinyfat.standins.lies import Lies, read_lie
from tinyfat.standins.serving import served

TOKEN = "hetzner-token-PLANTED-58c1"
INSTALLATION = "4f6c2a10b7d9"
LOCATIONS = ("fsn1", "nbg1", "hel1")
SSH_CA = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJvQnOdQ4t0pCzTrM6gX1yUuQ2G7GkB0Zf0V3QmQ0H1d tinyfat"
LISTED_SECONDS = 10.0
SECONDS = 20.0


@dataclass
class Project:
    """`cloud` is the truth. Its clock is the drivers' too: `pass_time` moves both."""

    cloud: Cloud
    standin: Standin
    url: str
    waits: list[float] = field(default_factory=list)  # what drivers would have slept
    _opened: list[HetznerCloud] = field(default_factory=list)

    def connection(self, token: str = TOKEN) -> HetznerCloud:
        async def sleep(seconds: float) -> None:
            self.waits.append(seconds)
            self.pass_time(seconds)

        made = HetznerCloud(token, f"{self.url}/v1", self.cloud.clock, self.cloud.clock, sleep)
        self._opened.append(made)
        return made

    def servers(self, installation: str = INSTALLATION, token: str = TOKEN, size: str = "") -> HetznerServers:
        """As a control plane that has run for a while has it."""
        made = self.newborn(installation, token, size)
        self.pass_time(LISTED_SECONDS + 1)
        return made

    def listed(self) -> HetznerServers:
        """Where lists are known not to lag."""
        return self.newborn(listed_seconds=0.0)

    def newborn(
        self,
        installation: str = INSTALLATION,
        token: str = TOKEN,
        size: str = "",
        listed_seconds: float = LISTED_SECONDS,
    ) -> HetznerServers:
        """As a control plane that just came back after a crash has it."""
        return HetznerServers(
            self.connection(token),
            installation,
            lambda order: f"#cloud-config\n# {order.id}\n",
            locations=LOCATIONS,
            euro=Decimal("1.10"),
            size=size,
            clock=self.cloud.clock,
            listing_seconds=0.0,
            listed_seconds=listed_seconds,
        )

    def pass_time(self, seconds: float) -> None:
        self.cloud.clock.advance(seconds)

    def lie(self, *lies: str) -> None:
        for text in lies:
            self.cloud.lies.add(read_lie(text, "servers"))

    def close(self) -> None:
        for one in self._opened:
            one.close()


@asynccontextmanager
async def project(*lies: str, seed: int = 0, action_seconds: float = 0.0) -> AsyncIterator[Project]:
    cloud = Cloud(
        options=Options(action_seconds=action_seconds), lies=Lies([read_lie(lie, "servers") for lie in lies], seed)
    )
    standin = Standin(cloud, TOKEN)
    async with served(hetzner_app(standin)) as url:
        made = Project(cloud, standin, url)
        try:
            yield made
        finally:
            made.close()


def order(agent_name: str = "ada", **server: object) -> MachineOrder:
    wanted = ServerOrder(
        hostname=f"{agent_name}.agents.example.org",
        control_url="https://control.example.org:8443",
        control_ca="",
        enrolment_token="once",
        box_sha256="0" * 64,
        ssh_ca=SSH_CA,
        **server,  # type: ignore[arg-type]
    )
    return MachineOrder(str(uuid.uuid4()), agent_name, "echo", "wss://control.example.org/box/link", "token", wanted)


async def becomes(servers: HetznerServers, machine_id: str, *states: MachineState) -> None:
    async def there() -> bool:
        return (await servers.look(machine_id)).state in states

    await until(there, SECONDS, f"machine {machine_id} is {states}")


async def runs(servers: HetznerServers, wanted: MachineOrder) -> None:
    """Ordered as often as it takes, as flows do."""

    async def there() -> bool:
        try:
            await servers.start(wanted)
            return (await servers.look(wanted.id)).state is MachineState.RUNNING
        except MachinesUnreachable:
            return False

    await until(there, SECONDS, f"machine {wanted.id} runs")
