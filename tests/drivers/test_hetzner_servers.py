"""Servers at Hetzner, against the stand-in: orders, looks, the end, and each lie alone."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest
from hcloud import APIException

from tests.drivers.hetzner_project import (
    INSTALLATION,
    LISTED_SECONDS,
    TOKEN,
    Project,
    becomes,
    order,
    project,
    runs,
)
from tinyfat.domain.machines import MachineState
from tinyfat.domain.shortages import PAUSE_SECONDS_FIRST
from tinyfat.drivers.machines.hetzner.power import ASK_AGAIN_SECONDS, FORCE_SECONDS
from tinyfat.drivers.machines.hetzner.servers import HetznerServers
from tinyfat.ports.machines import MachineRefused, MachinesFull, MachinesUnreachable
from tinyfat.ports.requests import ending

GONE, STOPPED, RUNNING, UNKNOWN = MachineState.GONE, MachineState.STOPPED, MachineState.RUNNING, MachineState.UNKNOWN


async def test_its_life_from_start_to_gone_each_step_twice() -> None:
    async with project() as here:
        servers, one = here.servers(), order()
        assert (await servers.look(one.id)).state is GONE
        for _ in range(2):
            await servers.start(one)
        await becomes(servers, one.id, RUNNING)
        for _ in range(2):
            await servers.stop(one.id)
        await becomes(servers, one.id, STOPPED)
        await runs(servers, one)
        for _ in range(2):
            await servers.delete(one.id)
        await becomes(servers, one.id, GONE)
        assert here.cloud.servers == {} and await here.cloud.machines.machines() == []
        await servers.stop(one.id)
        await runs(servers, one)
        assert len(here.cloud.servers) == 1


async def test_what_is_ordered_is_what_is_made() -> None:
    async with project() as here:
        servers, one = here.servers(), order(ssh_networks=("203.0.113.0/24",))
        await servers.start(one)
        (server,) = here.cloud.servers.values()
        assert server.name == f"tinyfat-{one.id}"
        assert (server.type, server.location) == ("cx23", "fsn1")  # the cheapest with 4 GB
        assert server.user_data == f"#cloud-config\n# {one.id}\n"
        assert server.labels == {
            "tinyfat.installation": INSTALLATION, "managed-by": "tinyfat", "tinyfat.machine": one.id,
            "tinyfat.agent": "ada",
        }  # fmt: skip
        (key,) = here.cloud.ssh_keys.values()
        assert one.server is not None and key.public_key == one.server.ssh_ca
        (firewall,) = here.cloud.firewalls.values()
        assert list(server.firewalls) == [firewall.id]
        assert [(r["protocol"], r.get("port"), r["source_ips"]) for r in firewall.rules] == [
            ("tcp", "22", ["203.0.113.0/24"]),
            ("icmp", None, ["0.0.0.0/0", "::/0"]),
        ]


async def test_servers_alike_share_a_firewall_and_what_is_published_opens_the_web() -> None:
    async with project() as here:
        servers = here.servers()
        one, two = order("ada"), order("bob")
        await servers.start(one)
        await servers.start(two)
        assert len(here.cloud.firewalls) == 1
        await becomes(servers, two.id, RUNNING)
        assert two.server is not None
        await servers.start(replace(two, server=replace(two.server, published=True)))

        def open_ports(name: str) -> list[set[str]]:
            server = next(each for each in here.cloud.servers.values() if each.name == f"tinyfat-{name}")
            return [{str(r.get("port")) for r in here.cloud.firewalls[n].rules} for n in server.firewalls]

        await becomes(servers, two.id, RUNNING)
        assert open_ports(two.id) == [{"22", "443", "None"}]
        assert open_ports(one.id) == [{"22", "None"}]


async def test_a_running_server_is_opened_and_closed_by_another_firewall() -> None:
    """The new one before the old one goes: what is open in both stays open, and connections with it."""
    async with project(action_seconds=5.0) as here:
        servers, one, two = here.servers(), order("ada"), order("bob")
        for each in (one, two):
            await servers.start(each)
        here.pass_time(60)
        assert one.server is not None
        networks = one.server.ssh_networks

        async def ports(name: str) -> list[tuple[list[str], str]]:
            await servers.look(name)
            server = next(each for each in here.cloud.servers.values() if each.name == f"tinyfat-{name}")
            rules = {number: here.cloud.firewalls[number].rules for number in server.firewalls}
            return [([str(r["port"]) for r in rules[number]], state) for number, state in server.firewalls.items()]

        closed, opened = ["22", "None"], ["22", "443", "None"]
        assert await ports(one.id) == [(closed, "applied")]
        assert not await servers.opens(one.id, networks, True)
        assert await ports(one.id) == [(closed, "applied"), (opened, "pending")]
        assert not await servers.opens(one.id, networks, True)
        here.pass_time(60)
        assert await servers.opens(one.id, networks, True)
        assert await ports(one.id) == [(opened, "applied")]
        assert await ports(two.id) == [(closed, "applied")]  # another agent's is as it was
        await servers.opens(one.id, networks, False)
        here.pass_time(60)
        assert await servers.opens(one.id, networks, False)
        assert await ports(one.id) == [(closed, "applied")]


async def test_a_list_that_was_read_a_moment_ago_is_no_refusal() -> None:
    """Somebody else has put it on by now: that is looked at again, and not called impossible."""
    async with project() as here:
        servers, one = here.servers(), order("ada")
        await runs(servers, one)
        (before,) = await servers._fleet.of(one.id)
        assert one.server is not None
        opened = await servers._firewalls.ensure(one.server.ssh_networks, True)
        await servers._firewalls.put_on(before, opened)
        with pytest.raises(MachinesUnreachable):
            await servers._firewalls.put_on(before, opened)
        assert await servers.opens(one.id, one.server.ssh_networks, True)


async def test_rules_that_somebody_changed_are_put_right() -> None:
    async with project() as here:
        servers = here.servers()
        await servers.start(order())
        (firewall,) = here.cloud.firewalls.values()
        right = list(firewall.rules)
        firewall.rules = [*right, {**right[0], "port": "1-65535", "source_ips": ["0.0.0.0/0"]}]
        await servers.start(order("bob"))
        assert firewall.rules == right


async def test_start_does_not_wait_and_look_says_how_far_it_is() -> None:
    async with project(action_seconds=30.0) as here:
        servers, one = here.servers(), order()
        await servers.start(one)
        seen = await servers.look(one.id)
        assert seen.state is UNKNOWN and "initializing" in seen.detail and "create_server is at" in seen.detail
        here.pass_time(61)
        assert (await servers.look(one.id)).state is RUNNING


async def test_two_control_planes_order_at_once_and_there_is_one_server() -> None:
    async with project() as here:
        one, planes = order(), [here.servers() for _ in range(4)]
        await asyncio.gather(*(runs(servers, one) for servers in planes))
        assert len(here.cloud.servers) == 1 and len(here.cloud.firewalls) == 1 and len(here.cloud.ssh_keys) == 1


async def test_it_is_never_called_ended_while_it_runs() -> None:
    async with project(action_seconds=0.1) as here:
        servers, one = here.servers(), order()
        await runs(servers, one)
        for ask in (servers.stop, servers.delete):
            while (seen := (await servers.look(one.id)).state) not in (STOPPED, GONE) or ask == servers.delete:
                machines = await here.cloud.machines.machines()
                alive = any(each.state is RUNNING for each in machines)
                assert not (alive and seen in (STOPPED, GONE))
                if seen is GONE:
                    break
                try:
                    await ask(one.id)
                except MachinesUnreachable:
                    here.pass_time(0.1)
        assert here.cloud.servers == {}


# A stranger in the project.


async def test_another_installations_servers_are_not_ours() -> None:
    async with project() as here:
        ours, theirs = here.servers(), here.servers("another-installation")
        one = order()
        await runs(theirs, order("bob"))
        await runs(ours, one)
        await ours.delete(one.id)
        await becomes(ours, one.id, GONE)
        assert len(here.cloud.servers) == 1


async def test_a_strangers_server_of_our_name_is_left_alone_and_said() -> None:
    async with project() as here:
        servers, one = here.servers(), order()
        await runs(servers, one)
        (server,) = here.cloud.servers.values()
        server.labels = {}
        seen = await servers.look(one.id)
        assert seen.state is UNKNOWN and f"tinyfat.machine={one.id}" in seen.detail
        for call in (servers.start(one), servers.stop(one.id), servers.delete(one.id)):
            with pytest.raises(MachineRefused, match="not our labels"):
                await call
        assert len(here.cloud.servers) == 1


async def test_a_server_that_was_renamed_is_found_by_its_labels() -> None:
    async with project() as here:
        servers, one = here.servers(), order()
        await runs(servers, one)
        next(iter(here.cloud.servers.values())).name = "my-favourite"
        assert (await servers.look(one.id)).state is RUNNING
        await servers.start(one)
        assert len(here.cloud.servers) == 1


async def test_two_servers_with_one_machines_label_are_said() -> None:
    async with project() as here:
        servers, one, two = here.servers(), order(), order()
        await runs(servers, one)
        await runs(servers, two)
        for server in here.cloud.servers.values():
            server.labels["tinyfat.machine"] = one.id
        seen = await servers.look(one.id)
        assert seen.state is UNKNOWN and "2 servers" in seen.detail
        await servers.delete(one.id)
        await becomes(servers, one.id, GONE)
        assert here.cloud.servers == {}


# Each lie alone.


async def test_an_order_whose_answer_was_lost_is_carried_out_once() -> None:
    async with project("create-504:servers=1") as here:
        servers, one = here.servers(), order()
        with pytest.raises(MachinesUnreachable, match="504"):
            await servers.start(one)
        await runs(servers, one)
        assert len(here.cloud.servers) == 1


@pytest.mark.parametrize("collection", ["firewalls", "ssh_keys", "primary_ips"])
async def test_what_goes_with_a_server_is_made_once_too(collection: str) -> None:
    async with project(f"create-504:{collection}=1") as here:
        servers, one = here.servers(), order(address="address-1")
        with pytest.raises(MachinesUnreachable, match="504"):
            await servers.address("address-1")
            await servers.start(one)
        await servers.address("address-1")
        await runs(servers, one)
        cloud = here.cloud
        found = (len(cloud.servers), len(cloud.firewalls), len(cloud.ssh_keys), len(cloud.primary_ips))
        assert found == (1, 1, 1, 2)


async def test_lists_that_lag_never_make_it_gone_nor_two() -> None:
    async with project("list-late") as here:
        servers, one = here.servers(), order()
        await servers.start(one)
        assert (await servers.look(one.id)).state in (UNKNOWN, RUNNING)
        after_a_crash = here.newborn()
        assert (await after_a_crash.look(one.id)).state is UNKNOWN
        with pytest.raises(MachinesUnreachable):  # a list that knows nothing of the firewall, or of the server
            await after_a_crash.start(one)
        here.pass_time(3)
        await runs(after_a_crash, one)
        assert len(here.cloud.servers) == 1
        await servers.delete(one.id)
        await _gone(here, servers, one.id)
        assert here.cloud.servers == {}


async def test_one_that_is_deleted_before_it_is_listed_is_deleted() -> None:
    async with project("list-late") as here:
        servers, one = here.servers(), order()
        await servers.start(one)
        await servers.delete(one.id)
        await _gone(here, servers, one.id)
        assert here.cloud.servers == {}


async def test_a_stop_that_does_nothing_ends_in_the_plug() -> None:
    async with project("stop-runs-on=2") as here:
        servers, one = here.servers(), order()
        await runs(servers, one)
        await servers.stop(one.id)
        assert (await servers.look(one.id)).state is RUNNING
        await servers.stop(one.id)  # too early to force it
        here.pass_time(FORCE_SECONDS + 1)
        await servers.stop(one.id)  # forced, and lied to again
        assert (await servers.look(one.id)).state is RUNNING
        here.pass_time(ASK_AGAIN_SECONDS)
        await servers.stop(one.id)
        await becomes(servers, one.id, STOPPED)
        commands = [each.command for each in here.cloud.actions.values() if "s" in each.command]
        assert commands.count("shutdown_server") == 1 and commands.count("stop_server") == 2


async def test_a_delete_that_does_nothing_is_asked_for_again() -> None:
    async with project("delete-stays=1") as here:
        servers, one = here.servers(), order()
        await runs(servers, one)
        await servers.delete(one.id)
        await servers.delete(one.id)
        assert (await servers.look(one.id)).state is RUNNING
        here.pass_time(ASK_AGAIN_SECONDS)
        await servers.delete(one.id)
        await becomes(servers, one.id, GONE)


async def test_no_room_here_is_room_there() -> None:
    async with project("capacity:fsn1") as here:
        servers, one = here.servers(), order()
        await runs(servers, one)
        assert [server.location for server in here.cloud.servers.values()] == ["nbg1"]


async def test_no_room_of_one_type_is_room_of_the_next() -> None:
    async with project("capacity:fsn1=1") as here:
        servers, one = here.servers(), order(locations=("fsn1",))
        await runs(servers, one)
        (server,) = here.cloud.servers.values()
        assert (server.location, server.type) == ("fsn1", "cx33")


async def test_no_room_anywhere_names_what_was_tried_and_leaves_nothing() -> None:
    async with project("capacity") as here:
        servers, one = here.servers(), order()
        with pytest.raises(MachinesFull, match=r"cx23 in fsn1.*cx23 in nbg1.*cx23 in hel1"):
            await servers.start(one)
        assert (await servers.look(one.id)).state is UNKNOWN or here.cloud.servers == {}
        here.pass_time(LISTED_SECONDS + 1)
        assert (await servers.look(one.id)).state is GONE


async def test_with_an_address_only_its_own_location_will_do() -> None:
    async with project("capacity:fsn1") as here:
        servers = here.servers()
        assert (await servers.address("address-1")).location == "fsn1"
        with pytest.raises(MachinesFull, match="fsn1"):
            await servers.start(order(address="address-1"))
        assert await _released(here, servers, "address-1")
        address = await servers.address("address-1")
        assert address.location == "nbg1"  # where it is not known to be full
        await runs(servers, order(address="address-1"))


async def test_over_the_rate_limit_nothing_is_asked_but_what_ends() -> None:
    """A 429 says until when: what waits for it are flows, for the driver is told once."""
    async with project() as here:
        servers, one = here.servers(), order()
        await runs(servers, one)
        here.lie("rate-limited=1")
        before = len(here.standin.calls)
        for _ in range(3):
            with pytest.raises(MachinesUnreachable, match=r"limit of requests|rate limit"):
                await servers.start(order("bob"))
        assert len(here.standin.calls) == before + 1 and here.waits == []
        with ending():
            here.pass_time(10)  # ten are given back by then
            await servers.delete(one.id)
            await becomes(servers, one.id, GONE)
        here.pass_time(3600)
        await servers.start(order("bob"))


@pytest.mark.parametrize("lie", ["maintenance=1", "locked=1"])
async def test_what_passes_is_asked_for_again(lie: str) -> None:
    async with project() as here:
        servers, one = here.servers(), order()
        await runs(servers, one)
        here.lie(lie)
        if lie == "maintenance=1":
            with pytest.raises(MachinesUnreachable, match="maintenance"):
                await servers.stop(one.id)
        else:
            await servers.stop(one.id)
        assert (await servers.look(one.id)).state is RUNNING
        await servers.stop(one.id)
        await becomes(servers, one.id, STOPPED)


@pytest.mark.parametrize("seed", range(6))
async def test_one_in_five_answers_lost_its_life_is_the_same(seed: int) -> None:
    async with project("error-500", seed=seed) as here:
        servers, one = here.servers(), order(address="address-1")

        async def insist(ask: Callable[[str], Awaitable[object]], *states: MachineState) -> None:
            for _ in range(200):
                try:
                    await ask("address-1" if ask == servers.address else one.id)
                    if (await servers.look(one.id)).state in states:
                        return
                except MachinesUnreachable:
                    pass
                here.pass_time(1)
            raise AssertionError("never")

        await insist(servers.address, GONE)
        await runs(servers, one)
        assert len(here.cloud.servers) == 1 and len(here.cloud.primary_ips) == 2
        await insist(servers.stop, STOPPED)
        await insist(servers.delete, GONE)
        assert here.cloud.servers == {} and await here.cloud.machines.machines() == []
        here.cloud.lies.clear()
        assert await _released(here, servers, "address-1")
        assert here.cloud.primary_ips == {}


async def test_an_action_that_hangs_is_said_and_is_not_an_end() -> None:
    async with project("action-hangs:create_server=1", seed=3) as here:
        servers, one = here.servers(), order()
        await servers.start(one)
        here.pass_time(3600)
        seen = await servers.look(one.id)
        assert seen.state in (UNKNOWN, RUNNING)
        await servers.delete(one.id)
        await becomes(servers, one.id, GONE)


async def test_an_action_that_failed_is_named() -> None:
    async with project(action_seconds=30.0) as here:
        servers, one = here.servers(), order()
        await servers.start(one)
        action = next(each for each in here.cloud.actions.values() if each.command == "create_server")
        action.settled, action.status = True, "error"
        action.error = {"code": "action_failed", "message": "the host failed"}
        for other in here.cloud.actions.values():
            other.settled = True
        seen = await servers.look(one.id)
        assert seen.state is UNKNOWN and "create_server" in seen.detail


# What is wrong on our side.


async def test_a_wrong_token_is_refused_and_never_shown() -> None:
    async with project() as here:
        servers = here.servers(token="wrong-token-PLANTED")
        with pytest.raises(MachineRefused, match="TINYFAT_HETZNER_TOKEN") as refused:
            await servers.start(order())
        assert "PLANTED" not in str(refused.value) and TOKEN not in repr(refused.value)


@pytest.mark.parametrize(
    ("server", "words"),
    [
        ({"size": "cx999"}, "cx999"),
        ({"locations": ("moon1",)}, "moon1"),
        ({"image": "openclaw-none"}, "openclaw-none"),
    ],
)
async def test_an_order_that_cannot_be_is_refused_in_words(server: dict[str, object], words: str) -> None:
    async with project() as here:
        with pytest.raises(MachineRefused, match=words):
            await here.servers().start(order(**server))
        assert here.cloud.servers == {}


async def test_an_order_without_a_server_is_refused() -> None:
    async with project() as here:
        with pytest.raises(MachineRefused, match="ada"):
            await here.servers().start(replace(order(), server=None))


async def _released(here: Project, servers: HetznerServers, address_id: str) -> bool:
    for _ in range(20):
        if await servers.release(address_id):
            return True
        here.pass_time(2)
    return False


async def _gone(here: Project, servers: HetznerServers, machine_id: str) -> None:
    for _ in range(20):
        if (await servers.look(machine_id)).state is GONE:
            return
        here.pass_time(2)
    raise AssertionError("still there")


async def test_a_shortage_is_found_out_once_and_then_asked_about_now_and_then() -> None:
    """Of those that come while it lasts, none asks; when it is time, one does."""
    async with project("capacity") as here:
        servers = here.servers()
        with pytest.raises(MachinesFull, match="Tried: cx23 in fsn1"):
            await servers.start(order("ada"))
        made = _orders(here)
        for n in range(15):
            with pytest.raises(MachinesFull, match="Known to have none: cx23 in fsn1"):
                await servers.start(order(f"bob{n}"))
            with pytest.raises(MachinesFull, match="asked again in"):
                await servers.room("fsn1", "")
        assert _orders(here) == made
        here.pass_time(PAUSE_SECONDS_FIRST + 1)
        for n in range(15):
            with pytest.raises(MachinesFull):
                await servers.start(order(f"eve{n}"))
        assert _orders(here) == 2 * made
        here.cloud.lies.clear()
        here.pass_time(2 * PAUSE_SECONDS_FIRST + 1)
        await servers.start(order("late"))
        assert len(here.cloud.servers) == 1


def _orders(here: Project) -> int:
    return sum(call["method"] == "POST" and call["path"].endswith("/servers") for call in here.standin.calls)


@pytest.mark.parametrize("sold", ["cx23 in nbg1", "cx43 in fsn1", "nothing"])
async def test_what_is_not_sold_in_a_place_is_looked_for_in_the_next(
    monkeypatch: pytest.MonkeyPatch, sold: str
) -> None:
    """However many types are not: they are no shortage, and do not count as tried."""
    asked: list[str] = []

    async with project() as here:
        servers = here.servers()
        real = servers._make

        def refusing(*arguments: object) -> int:
            place = arguments[-2]
            asked.append(f"{place.type} in {place.location}")  # type: ignore[attr-defined]
            if asked[-1] != sold:
                error = {"code": "invalid_input", "message": "unsupported location for server type", "details": None}
                raise APIException(**error)  # type: ignore[arg-type]
            return real(*arguments)  # type: ignore[arg-type]

        monkeypatch.setattr(servers, "_make", refusing)
        if sold == "nothing":
            with pytest.raises(MachinesFull, match="unsupported location for server type"):
                await servers.start(order())
            assert here.cloud.servers == {} and len({one.split()[2] for one in asked}) == 3
            return
        await servers.start(order())
        [server] = here.cloud.servers.values()
        assert f"{server.type} in {server.location}" == sold == asked[-1] and len(asked) > 3
