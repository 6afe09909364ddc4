"""Which driver makes which kind of machine."""

from __future__ import annotations

from collections.abc import Mapping

from tinyfat.ports.machines import MachineRefused, Machines, Servers


class MachineKinds:
    def __init__(self, drivers: Mapping[str, Machines]) -> None:
        self._drivers = dict(drivers)

    def of(self, kind: str) -> Machines:
        """Raises MachineRefused."""
        try:
            return self._drivers[kind]
        except KeyError:
            known = ", ".join(self._drivers)
            raise MachineRefused(f"There is no driver for machines of the kind {kind!r}; there are: {known}.") from None

    def is_server(self, kind: str) -> bool:
        return isinstance(self._drivers.get(kind), Servers)

    def servers(self, kind: str) -> Servers:
        """Raises MachineRefused."""
        driver = self.of(kind)
        if not isinstance(driver, Servers):
            raise MachineRefused(f"Machines of the kind {kind!r} are no servers of their own.")
        return driver

    @property
    def known(self) -> list[str]:
        return list(self._drivers)

    @property
    def server_kinds(self) -> list[str]:
        return [kind for kind in self._drivers if self.is_server(kind)]
