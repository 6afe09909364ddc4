"""Addresses at Hetzner that outlive servers, what is paid for, and images, against the stand-in."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import pytest

from tests.drivers.hetzner_project import INSTALLATION, LISTED_SECONDS, Project, becomes, order, project, runs
from tinyfat.domain.machines import Billed, BilledKind, MachineOrder, MachineState
from tinyfat.drivers.machines.hetzner.servers import HetznerServers
from tinyfat.ports.machines import MachineRefused, MachinesFull, MachinesUnreachable
from tinyfat.ports.requests import RequestsShort
from tinyfat.standins.hetzner import catalogue

CALLS_MAX = 60  # of a move, a second apart
CX23_NANODOLLARS = round(Decimal("3.49") * Decimal("1.10") * 1_000_000_000)
IPV4_NANODOLLARS = round(catalogue.PRIMARY_IPV4_MONTH * Decimal("1.10") * 1_000_000_000)


async def attached(here: Project, servers: HetznerServers, address_id: str, machine_id: str) -> None:
    for _ in range(CALLS_MAX):
        try:
            if await servers.attach(address_id, machine_id):
                return
        except RequestsShort as short:  # flows wait so long
            here.pass_time(short.seconds)
        except MachinesUnreachable:
            pass
        here.pass_time(1)
    raise AssertionError(f"{address_id} never came to {machine_id}")


async def released(here: Project, servers: HetznerServers, address_id: str) -> None:
    for _ in range(CALLS_MAX):
        try:
            if await servers.release(address_id):
                return
        except MachinesUnreachable:
            pass
        here.pass_time(1)
    raise AssertionError(f"{address_id} stays")


async def gone(here: Project, servers: HetznerServers, machine_id: str) -> None:
    for _ in range(CALLS_MAX):
        try:
            await servers.delete(machine_id)
            if (await servers.look(machine_id)).state is MachineState.GONE:
                return
        except MachinesUnreachable:
            pass
        here.pass_time(1)
    raise AssertionError(f"{machine_id} stays")


async def with_address(here: Project) -> tuple[HetznerServers, MachineOrder]:
    servers, one = here.servers(), order(address="agent-1")
    await servers.address("agent-1")
    await runs(servers, one)
    return servers, one


def names(here: Project) -> set[str]:
    return {one.name for one in here.cloud.primary_ips.values()}


async def test_an_address_is_made_once_and_is_there_before_any_machine() -> None:
    async with project() as here:
        servers = here.servers()
        first = await servers.address("agent-1")
        assert first == await servers.address("agent-1") == await here.newborn().address("agent-1")
        assert first.ipv4 and first.ipv6.endswith("::1") and first.location == "fsn1" and first.machine_id == ""
        assert names(here) == {"tinyfat-agent-1-ipv4", "tinyfat-agent-1-ipv6"}
        assert (await servers.address("agent-2", "hel1")).location == "hel1"


async def test_a_machine_comes_with_its_address_and_its_name() -> None:
    async with project() as here:
        servers, one = here.servers(), order(address="agent-1")
        address = await servers.address("agent-1", "nbg1")
        await runs(servers, one)
        seen = await servers.look(one.id)
        assert (seen.ipv4, seen.ipv6) == (address.ipv4, address.ipv6)
        assert [server.location for server in here.cloud.servers.values()] == ["nbg1"]
        assert (await servers.address("agent-1")).machine_id == one.id
        pointers = {ip: name for each in here.cloud.primary_ips.values() for ip, name in each.pointers.items()}
        assert pointers == {address.ipv4: "ada.agents.example.org", address.ipv6: "ada.agents.example.org"}


async def test_the_address_outlives_the_machine() -> None:
    async with project() as here:
        servers, one = await with_address(here)
        before = await servers.address("agent-1")
        await gone(here, servers, one.id)
        after = await servers.address("agent-1")
        assert after == replace(before, machine_id="")
        two = order(address="agent-1")
        await runs(servers, two)
        assert (await servers.look(two.id)).ipv4 == before.ipv4
        await gone(here, servers, two.id)
        await released(here, servers, "agent-1")
        assert here.cloud.primary_ips == {}
        await released(here, servers, "agent-1")


async def replaced(here: Project) -> tuple[HetznerServers, MachineOrder, MachineOrder]:
    """One runs with the address, two beside it with a passing one, where the address is."""
    servers, one = await with_address(here)
    address = await servers.address("agent-1")
    two = order(locations=(address.location,))
    await runs(servers, two)
    return servers, one, two


async def test_it_moves_from_one_machine_to_the_next_and_what_passed_is_gone() -> None:
    async with project() as here:
        servers, one, two = await replaced(here)
        address = await servers.address("agent-1")
        passing = (await servers.look(two.id)).ipv4
        await attached(here, servers, "agent-1", two.id)
        assert await servers.attach("agent-1", two.id)
        seen = await servers.look(two.id)
        assert (seen.state, seen.ipv4, seen.ipv6) == (MachineState.RUNNING, address.ipv4, address.ipv6)
        assert (await servers.look(one.id)).state is MachineState.STOPPED
        assert (await servers.address("agent-1")) == replace(address, machine_id=two.id)
        assert names(here) == {"tinyfat-agent-1-ipv4", "tinyfat-agent-1-ipv6"}
        assert passing not in {each.ip for each in here.cloud.primary_ips.values()}


async def test_a_passing_address_of_our_own_stays_until_it_is_released() -> None:
    async with project() as here:
        servers, one = await with_address(here)
        two = order(address="passing-2")
        await servers.address("passing-2")
        await runs(servers, two)
        await attached(here, servers, "agent-1", two.id)
        assert "tinyfat-passing-2-ipv4" in names(here)
        await released(here, servers, "passing-2")
        await gone(here, servers, one.id)
        assert names(here) == {"tinyfat-agent-1-ipv4", "tinyfat-agent-1-ipv6"}
        assert (await servers.look(two.id)).state is MachineState.RUNNING


@pytest.mark.parametrize(
    "lie",
    [
        "stop-runs-on=1",
        "locked=3",
        "maintenance=2",
        "rate-limited=4",
        "list-late",
        "action-hangs:unassign_primary_ip=1",
        "action-hangs:start_server=1",
    ],
)
@pytest.mark.parametrize("seed", [0, 1])
async def test_it_moves_whatever_lie_is_told(lie: str, seed: int) -> None:
    async with project(seed=seed) as here:
        servers, _, two = await replaced(here)
        address = await servers.address("agent-1")
        here.lie(lie)
        await attached(here, servers, "agent-1", two.id)
        here.pass_time(5)
        assert (await servers.look(two.id)).ipv4 == address.ipv4
        real = [one.address for one in await here.cloud.machines.machines() if one.state is MachineState.RUNNING]
        assert [one.ipv4 for one in real if one] == [address.ipv4]


@pytest.mark.parametrize("seed", range(4))
async def test_it_moves_though_one_in_five_answers_is_lost_and_another_control_plane_goes_on(seed: int) -> None:
    async with project(seed=seed) as here:
        servers, one, two = await replaced(here)
        here.lie("error-500")
        for n in range(CALLS_MAX * 2):
            plane = servers if n % 3 else here.newborn()  # as after a crash
            try:
                if await plane.attach("agent-1", two.id):
                    break
            except MachinesUnreachable:
                pass
            here.pass_time(3)
        else:
            raise AssertionError("never moved")
        here.cloud.lies.clear()
        assert await servers.attach("agent-1", two.id)
        assert names(here) == {"tinyfat-agent-1-ipv4", "tinyfat-agent-1-ipv6"}
        assert (await servers.look(one.id)).state is MachineState.STOPPED
        assert (await servers.look(two.id)).state is MachineState.RUNNING


async def test_what_cannot_be_moved_is_refused_in_words() -> None:
    async with project() as here:
        servers, _ = await with_address(here)
        two = order(locations=("hel1",))
        await runs(servers, two)
        with pytest.raises(MachineRefused, match="hel1"):
            await servers.attach("agent-1", two.id)
        with pytest.raises(MachineRefused, match="agent-9"):
            await servers.attach("agent-9", two.id)
        here.pass_time(LISTED_SECONDS + 1)
        with pytest.raises(MachineRefused, match="no-machine"):
            await servers.attach("agent-1", "no-machine")
        with pytest.raises(MachineRefused, match="agent-9"):
            await servers.start(order(address="agent-9"))
        assert not await servers.release("agent-1")  # a machine has it
        assert names(here) >= {"tinyfat-agent-1-ipv4", "tinyfat-agent-1-ipv6"}


async def test_no_address_left_anywhere_is_said() -> None:
    async with project() as here:
        here.cloud.options = replace(here.cloud.options, address_limit=0)
        with pytest.raises(MachineRefused, match="limit"):
            await here.servers().address("agent-1")


async def test_a_strangers_address_of_our_name_is_left_alone() -> None:
    async with project() as here:
        servers = here.servers()
        await servers.address("agent-1")
        for one in here.cloud.primary_ips.values():
            one.labels = {}
        with pytest.raises(MachineRefused, match="not our labels"):
            await servers.address("agent-1")
        with pytest.raises(MachineRefused, match="not our labels"):
            await servers.release("agent-1")
        assert len(here.cloud.primary_ips) == 2


async def test_under_the_lie_that_addresses_change_the_change_is_seen() -> None:
    async with project() as here:
        servers, one = await with_address(here)
        before = await servers.address("agent-1")
        await servers.stop(one.id)
        await becomes(servers, one.id, MachineState.STOPPED)
        here.lie("ip-changes=1")
        await runs(servers, one)
        after = await servers.address("agent-1")
        assert after.ipv4 != before.ipv4 and (await servers.look(one.id)).ipv4 == after.ipv4


# What is paid for.


async def billed(servers: HetznerServers) -> dict[tuple[BilledKind, str], Billed]:
    return {(one.kind, one.name): one for one in await servers.billed()}


async def test_everything_is_on_the_bill_with_its_price_and_whose_it_is() -> None:
    async with project() as here:
        servers, theirs = here.servers(), here.servers("another-installation")
        one, two, other = order(address="agent-1"), order("bob"), order("eve")
        await servers.address("agent-1")
        for who, what in ((servers, one), (servers, two), (theirs, other)):
            await runs(who, what)
        bill = await billed(servers)
        mine = bill[BilledKind.SERVER, f"tinyfat-{one.id}"]
        assert (mine.ours, mine.owner_id, mine.detail) == (True, one.id, "running")
        assert mine.monthly_nanodollars == CX23_NANODOLLARS
        assert bill[BilledKind.SERVER, f"tinyfat-{two.id}"].monthly_nanodollars == CX23_NANODOLLARS + IPV4_NANODOLLARS
        foreign = bill[BilledKind.SERVER, f"tinyfat-{other.id}"]
        assert (foreign.ours, foreign.owner_id) == (False, "")
        address = bill[BilledKind.ADDRESS, "tinyfat-agent-1-ipv4"]
        assert (address.ours, address.owner_id) == (True, "agent-1")
        assert address.monthly_nanodollars == IPV4_NANODOLLARS
        kinds = sorted((kind, entry.ours) for (kind, _), entry in bill.items())
        assert kinds.count((BilledKind.FIREWALL, True)) == 1 and kinds.count((BilledKind.ADDRESS, True)) == 2
        firewall = next(entry for (kind, _), entry in bill.items() if kind is BilledKind.FIREWALL and entry.ours)
        assert firewall.owner_id in (one.id, two.id)
        assert await servers.monthly_nanodollars(one.id) == CX23_NANODOLLARS + IPV4_NANODOLLARS
        assert servers.month_price == CX23_NANODOLLARS + IPV4_NANODOLLARS


async def test_a_server_that_an_image_is_made_of_says_so_on_the_bill_and_is_no_image() -> None:
    async with project() as here:
        servers = here.servers()
        ada, builder = order(), order("", makes="openclaw-2026.9.6-78fb54d8-box-1a2b3c4d-debian-12")
        for one in (ada, builder):
            await runs(servers, one)
        bill = await billed(servers)
        assert bill[BilledKind.SERVER, f"tinyfat-{ada.id}"].makes == ""
        assert bill[BilledKind.SERVER, f"tinyfat-{builder.id}"].makes == builder.server.makes  # type: ignore[union-attr]
        foreign = {one.name: one.makes for one in await here.servers("another-installation").billed()}
        assert foreign[f"tinyfat-{builder.id}"] == ""
        assert list(await servers.images()) == []


async def test_what_is_ours_can_be_removed_and_nothing_else() -> None:
    async with project() as here:
        servers, theirs = here.servers(), here.servers("another-installation")
        one, other = order(address="agent-1"), order("eve")
        await servers.address("agent-1")
        await runs(servers, one)
        await runs(theirs, other)
        strangers = [entry for entry in await servers.billed() if not entry.ours]
        assert {entry.kind for entry in strangers} == {BilledKind.SERVER, BilledKind.FIREWALL, BilledKind.ADDRESS}
        for entry in strangers:
            with pytest.raises(MachineRefused, match="not labelled ours"):
                await servers.remove(entry)
            with pytest.raises(MachineRefused, match="not labelled ours"):
                await servers.remove(replace(entry, ours=True))  # labels may have changed since
        await servers.stop(one.id)
        await becomes(servers, one.id, MachineState.STOPPED)
        for _ in range(CALLS_MAX):
            ours = [entry for entry in await servers.billed() if entry.ours]
            if not ours:
                break
            for entry in ours:
                try:
                    await servers.remove(entry)
                    await servers.remove(entry)
                except MachinesUnreachable:
                    pass
            here.pass_time(1)
        assert [server.name for server in here.cloud.servers.values()] == [f"tinyfat-{other.id}"]
        assert len(here.cloud.firewalls) == 1


# Images.


async def imaged(here: Project, servers: HetznerServers, machine_id: str, name: str) -> None:
    for _ in range(CALLS_MAX):
        if await servers.snapshot(machine_id, name):
            return
        here.pass_time(1)
    raise AssertionError("never")


async def test_an_image_is_made_of_a_stopped_machine_and_machines_of_it() -> None:
    async with project() as here:
        servers, builder = here.servers(), order("")
        name = "openclaw-2026.9.6-78fb54d8-box-1a2b3c4d"
        await runs(servers, builder)
        with pytest.raises(MachineRefused, match="stopped"):
            await servers.snapshot(builder.id, name)
        await servers.stop(builder.id)
        await becomes(servers, builder.id, MachineState.STOPPED)
        assert not await servers.snapshot(builder.id, name)
        await imaged(here, servers, builder.id, name)
        await gone(here, servers, builder.id)
        assert await servers.snapshot(builder.id, name)
        (image,) = await servers.images()
        assert image.name == name and image.bytes > 0 and image.monthly_nanodollars > 0
        assert (await billed(servers))[BilledKind.IMAGE, name].owner_id == name
        assert await here.servers("another-installation").images() == []
        await runs(servers, order(image=name))
        (server,) = here.cloud.servers.values()
        assert here.cloud.images[server.image].labels["tinyfat.installation"] == INSTALLATION
        for _ in range(CALLS_MAX):
            if await servers.remove_image(name):
                break
        assert await servers.images() == [] and here.cloud.images == {}
        assert await servers.remove_image(name)


async def test_an_image_that_is_being_copied_is_not_there_yet() -> None:
    async with project() as here:
        servers, builder = here.servers(), order("")
        await runs(servers, builder)
        await servers.stop(builder.id)
        await becomes(servers, builder.id, MachineState.STOPPED)
        here.lie("action-hangs:create_image=1")
        here.cloud.options = replace(here.cloud.options, action_seconds=30.0)
        assert not await servers.snapshot(builder.id, "image-1")
        assert not await servers.snapshot(builder.id, "image-1")
        assert await servers.images() == [] and len(here.cloud.images) == 1
        with pytest.raises(MachineRefused, match="image-1"):
            await servers.start(order(image="image-1"))


def test_the_errors_are_those_of_the_port() -> None:
    assert issubclass(MachinesFull, MachineRefused)
