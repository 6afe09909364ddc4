"""What others do for us is tried before it is called well."""

from __future__ import annotations

import asyncio

from tinyfat.domain.names import RecordSet, RecordType
from tinyfat.drivers.dns.memory import MemoryDns
from tinyfat.drivers.machines.memory_servers import MemoryServers
from tinyfat.drivers.mail.memory import MemoryMailOut
from tinyfat.flows.outward import Outward
from tinyfat.ports.dns import DnsRefused


async def told(outward: Outward) -> dict[str, str]:
    return {one.what: one.complaint for one in await outward.tried()}


async def test_each_is_tried_and_what_is_not_there_is_not() -> None:
    assert await told(Outward(MemoryMailOut(), {"cloud": MemoryServers()}, MemoryDns("agents.example"))) == {
        "smarthost": "", "cloud": "", "zone": "",
    }  # fmt: skip
    assert await told(Outward(None, {}, None)) == {}


class NoZone(MemoryDns):
    async def look(self, name: str, kind: RecordType) -> RecordSet | None:
        raise DnsRefused("there is no zone agents.example")


class SilentMailOut(MemoryMailOut):
    async def trial(self) -> None:
        await asyncio.Event().wait()


async def test_what_refuses_is_said_in_its_own_words() -> None:
    out, cloud = MemoryMailOut(), MemoryServers()
    out.answer_next(["535 5.7.8 no such password"])
    cloud.lies.unreachable = 1
    complaints = await told(Outward(out, {"cloud": cloud}, NoZone("agents.example")))
    assert "535" in complaints["smarthost"] and complaints["cloud"] and "no zone" in complaints["zone"]


async def test_nobody_is_waited_for_for_ever() -> None:
    assert "no answer within" in (await told(Outward(SilentMailOut(), {}, None, 0.01)))["smarthost"]
