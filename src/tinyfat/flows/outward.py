"""What a control plane needs of others, tried now: the smarthost's login, the provider's token, the zone. Nothing is
changed there, and no mail sent."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from tinyfat.domain.names import RecordType
from tinyfat.ports.dns import Dns, DnsError
from tinyfat.ports.machines import MachinesError, Servers
from tinyfat.ports.mail import DeliveryError, MailOut

TRIAL_SECONDS_MAX = 20.0  # of each; they go side by side


@dataclass(frozen=True, slots=True)
class Tried:
    what: str  # "smarthost", "hetzner", "zone"
    complaint: str  # "": it works


class Outward:
    def __init__(
        self,
        mail_out: MailOut | None,
        servers: Mapping[str, Servers],
        dns: Dns | None,
        seconds: float = TRIAL_SECONDS_MAX,
    ) -> None:
        """None: there is no such thing here, and nothing to be tried. `servers`: those in use, by their kind."""
        self._mail_out = mail_out
        self._servers = servers
        self._dns = dns
        self._seconds = seconds

    async def tried(self) -> list[Tried]:
        trials: list[tuple[str, Callable[[], Awaitable[object]]]] = []
        if self._mail_out is not None:
            trials.append(("smarthost", self._mail_out.trial))
        trials += [(kind, driver.billed) for kind, driver in self._servers.items()]
        if self._dns is not None:
            dns = self._dns
            trials.append(("zone", lambda: dns.look(dns.zone, RecordType.TXT)))
        return list(await asyncio.gather(*(self._try(what, trial) for what, trial in trials)))

    async def _try(self, what: str, trial: Callable[[], Awaitable[object]]) -> Tried:
        try:
            async with asyncio.timeout(self._seconds):
                await trial()
        except TimeoutError:
            return Tried(what, f"no answer within {self._seconds:.0f} s")
        except (DeliveryError, MachinesError, DnsError) as error:
            return Tried(what, str(error))
        return Tried(what, "")
