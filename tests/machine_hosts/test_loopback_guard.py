"""A virtual machine and its host's loopback: what it finds there at 10.0.2.2, before and after it is shut out."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.machine_hosts.virtual_machines import VirtualMachines, virtual_machines
from tinyfat.machine_hosts.loopback_guard import ruleset


def test_only_what_is_admitted_and_name_servers_are_let_through() -> None:
    rules = ruleset("tinyfat_vm_x", "unified/tinyfat-machines/vm-x", [8028, 8027])
    assert "tcp dport { 8027, 8028 } accept" in rules
    assert rules.index("udp dport 53 accept") < rules.index("reject with tcp reset") < rules.rindex("reject")
    assert 'socket cgroupv2 level 2 "unified/tinyfat-machines/vm-x" ct state new goto guests' in rules
    assert "accept" not in ruleset("t", "c", []).replace("dport 53 accept", "").replace("policy accept", "")


@pytest.mark.vm
async def test_a_machine_finds_what_it_is_admitted_to_and_nothing_else(tmp_path: Path) -> None:
    async with virtual_machines(tmp_path) as machines, await _listening() as private, await _listening() as way_in:
        ports = [server.sockets[0].getsockname()[1] for server in (private, way_in)]
        await machines.create("before")
        await machines.host.admit(ports[1:])
        await machines.create("after")
        assert await _found(machines, "before", ports) == ports  # it can be seen from inside
        assert await _found(machines, "after", ports) == ports[1:]
        table = (tmp_path / "host" / "loopback.nft").read_text().split()[2]
        assert table in await _tables()
        for name in ("before", "after"):
            await machines.host.destroy(name)
        await machines.host.close()
        assert table not in await _tables()


async def _listening() -> asyncio.Server:
    async def served(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    return await asyncio.start_server(served, "127.0.0.1", 0)


async def _found(machines: VirtualMachines, name: str, ports: list[int]) -> list[int]:
    await machines.up(name)
    dial = 'timeout 10 bash -c "echo > /dev/tcp/10.0.2.2/$port" 2>/dev/null && echo $port'
    said = await machines.inside(name, f"for port in {' '.join(map(str, ports))}; do {dial}; done; true")
    return [int(word) for word in said.split()]


async def _tables() -> str:
    process = await asyncio.create_subprocess_exec("nft", "list", "tables", stdout=asyncio.subprocess.PIPE)
    said, _ = await process.communicate()
    return said.decode()
