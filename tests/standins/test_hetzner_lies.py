"""Each lie, as a client meets it, and what is true meanwhile."""

from __future__ import annotations

import pytest

from tests.standins.hetzner_api import SERVER, Api, opened
from tinyfat.standins.lies import Lie, LieName, Lies, read_lie


async def running(api: Api) -> list[bool]:
    return [machine["running"] for machine in (await api.truth())["machines"]]


@pytest.mark.parametrize("way", ["poweroff", "shutdown"])
async def test_stop_says_success_and_it_runs_on(way: str) -> None:
    async with opened("stop-runs-on=1") as api:
        server = await api.server()
        path = f"/servers/{server['id']}"
        assert (await api.action(await api.post(f"{path}/actions/{way}")))["status"] == "success"
        assert (await api.get(path))["server"]["status"] == "running"
        assert await running(api) == [True]
        await api.post(f"{path}/actions/{way}")
        await api.later()
        assert (await api.get(path))["server"]["status"] == "off"


async def test_delete_leaves_the_server() -> None:
    async with opened("delete-stays=1") as api:
        server = await api.server()
        assert (await api.action(await api.delete(f"/servers/{server['id']}")))["status"] == "success"
        assert (await api.get("/servers"))["servers"][0]["status"] == "running"
        assert await running(api) == [True]
        await api.delete(f"/servers/{server['id']}")
        await api.later()
        assert await running(api) == []


async def test_create_answers_504_and_has_created() -> None:
    async with opened("create-504=1") as api:
        body = {"name": "ada", **SERVER}
        assert await api.refused("POST", "/servers", body) == (504, "timeout")
        assert await api.refused("POST", "/servers", body) == (409, "uniqueness_error")
        await api.later()
        assert await running(api) == [True]


async def test_create_504_of_another_collection() -> None:
    async with opened("create-504:firewalls=1") as api:
        await api.server()
        assert await api.refused("POST", "/firewalls", {"name": "f"}) == (504, "timeout")
        assert (await api.truth())["firewalls"] == ["f"]


@pytest.mark.parametrize("way", ["reboot", "reset", "poweron"])
async def test_the_address_changes_on_restart(way: str) -> None:
    async with opened() as api:
        server = await api.server()
        if way == "poweron":
            await api.off(server)
        await api.lie("ip-changes=1")
        await api.post(f"/servers/{server['id']}/actions/{way}")
        await api.later()
        now = (await api.get(f"/servers/{server['id']}"))["server"]["public_net"]
        assert now["ipv4"]["ip"] != server["public_net"]["ipv4"]["ip"]
        assert now["ipv6"]["ip"] != server["public_net"]["ipv6"]["ip"]
        truth = await api.truth()
        assert truth["machines"][0]["ipv4"] == now["ipv4"]["ip"]
        assert len(truth["addresses"]) == 2


async def test_an_action_hangs_and_its_effect_comes_or_does_not() -> None:
    ends = set()
    for seed in range(8):
        async with opened(seed=seed) as api:
            server = await api.server()
            await api.lie("action-hangs:stop_server")
            action = await api.action(await api.post(f"/servers/{server['id']}/actions/poweroff"))
            assert (action["status"], action["finished"]) == ("running", None)
            assert 0 <= action["progress"] <= 99
            status = (await api.get(f"/servers/{server['id']}"))["server"]["status"]
            assert await running(api) == [status == "running"]
            ends.add(status)
            await api.post(f"/servers/{server['id']}/actions/reset")  # it holds nothing else up
            await api.later(10**6)
            assert (await api.get(f"/actions/{action['id']}"))["action"]["progress"] == action["progress"]
    assert ends == {"running", "off"}


async def test_an_action_that_hangs_holds_its_server_until_it_is_due() -> None:
    async with opened() as api:
        server = await api.server()
        await api.off(server)
        await api.lie("action-hangs:unassign_primary_ip")
        v4, v6 = (server["public_net"][family]["id"] for family in ("ipv4", "ipv6"))
        await api.post(f"/primary_ips/{v4}/actions/unassign")
        assert await api.refused("POST", f"/primary_ips/{v6}/actions/unassign") == (423, "locked")
        await api.later()
        await api.post(f"/primary_ips/{v6}/actions/unassign")
        await api.later()
        net = (await api.get(f"/servers/{server['id']}"))["server"]["public_net"]
        for family, number in (("ipv4", v4), ("ipv6", v6)):  # the server and its addresses say the same
            assignee = (await api.get(f"/primary_ips/{number}"))["primary_ip"]["assignee_id"]
            assert (net[family] is None) == (assignee is None)


async def test_a_creation_that_hangs() -> None:
    ends = set()
    for seed in range(8):
        async with opened("action-hangs:create_server", seed=seed) as api:
            made = await api.post("/servers", name="ada", **SERVER)
            await api.later()
            server = (await api.get(f"/servers/{made['server']['id']}"))["server"]
            assert await running(api) == [True] * (server["status"] == "running")
            ends.add(server["status"])
            await api.delete(f"/servers/{server['id']}")
            await api.later()
            assert (await api.truth())["machines"] == []
    assert ends == {"initializing", "running"}


async def test_a_volume_stays_attached() -> None:
    async with opened("volume-stays=1") as api:
        server = await api.server()
        made = await api.post("/volumes", name="data", size=10, server=server["id"])
        await api.later()
        path = f"/volumes/{made['volume']['id']}"
        assert (await api.action(await api.post(f"{path}/actions/detach")))["status"] == "success"
        assert (await api.get(path))["volume"]["server"] == server["id"]
        await api.post(f"{path}/actions/detach")
        await api.later()
        assert (await api.get(path))["volume"]["server"] is None


async def test_one_answer_in_five_is_a_500_whether_it_was_done_or_not() -> None:
    async with opened("error-500", seed=3) as api:
        seen = []
        for number in range(200):
            body = {"name": f"f{number}"}
            response = await api.ask("POST", "/firewalls", body)
            seen.append((response.status_code, f"f{number}" in (await api.truth())["firewalls"]))
        failed = [done for status, done in seen if status == 500]
        assert 20 <= len(failed) <= 60
        assert set(failed) == {True, False}
        assert all(done for status, done in seen if status == 201)


async def test_over_the_limit_though_it_is_not() -> None:
    async with opened("rate-limited:servers=1") as api:
        await api.get("/locations")
        response = await api.ask("GET", "/servers")
        assert (response.status_code, response.headers["RateLimit-Remaining"]) == (429, "0")
        await api.get("/servers")


async def test_locked_and_maintenance() -> None:
    async with opened("locked:servers=1", "maintenance:firewalls=1") as api:
        server = await api.server()
        assert await api.refused("POST", f"/servers/{server['id']}/actions/reboot") == (423, "locked")
        assert await api.refused("POST", "/firewalls", {"name": "f"}) == (403, "maintenance")
        await api.post("/firewalls", name="f")


async def test_lists_are_late() -> None:
    async with opened("list-late:servers") as api:
        made = await api.post("/servers", name="ada", **SERVER)
        assert (await api.get("/servers?name=ada"))["servers"] == []
        assert (await api.get(f"/servers/{made['server']['id']}"))["server"]["name"] == "ada"
        await api.later()
        assert len((await api.get("/servers?name=ada"))["servers"]) == 1
        await api.delete(f"/servers/{made['server']['id']}")
        await api.later()
        assert len((await api.get("/servers"))["servers"]) == 1  # gone, and still listed
        await api.later(3)
        assert (await api.get("/servers"))["servers"] == []


async def test_a_location_has_no_room() -> None:
    async with opened("capacity:fsn1=2") as api:
        refusals = [await api.refused("POST", "/servers", {"name": "ada", **SERVER}) for _ in range(2)]
        assert {status for status, _ in refusals} == {412}
        assert {code for _, code in refusals} <= {"resource_unavailable", "placement_error"}
        await api.post("/servers", name="ada", **SERVER)
        assert len((await api.truth())["primary_ips"]) == 2


async def test_lies_are_switched_while_it_runs() -> None:
    async with opened() as api:
        await api.lie("capacity:hel1")
        lies = (await api.client.post("/_standin/lies", json={"lie": "stop-runs-on=2"})).json()["lies"]
        assert lies == [
            {"name": "capacity", "part": "hel1", "times": None},
            {"name": "stop-runs-on", "part": "", "times": 2},
        ]
        left = (await api.client.delete("/_standin/lies/capacity")).json()["lies"]
        assert [lie["name"] for lie in left] == ["stop-runs-on"]
        assert (await api.client.delete("/_standin/lies")).json()["lies"] == []
        for wrong in ("tell-the-truth", "capacity=0", "capacity=x"):
            assert (await api.client.post("/_standin/lies", json={"lie": wrong})).status_code == 422
        api.client.headers.pop("Authorization")
        assert (await api.client.get("/_standin/lies")).status_code == 401


def test_lies_are_read_and_used_up() -> None:
    assert read_lie("capacity:fsn1=3") == Lie(LieName.CAPACITY, "fsn1", 3)
    assert read_lie("create-504", "dns_records") == Lie(LieName.CREATE_504, "dns_records", None)
    lies = Lies([read_lie("capacity:fsn1=2"), read_lie("stop-runs-on")])
    assert [lies.tell(LieName.CAPACITY, place) for place in ("hel1", "fsn1", "fsn1", "fsn1")] == [
        False,
        True,
        True,
        False,
    ]
    assert all(lies.tell(LieName.STOP_RUNS_ON) for _ in range(5))
    assert lies.wire()["told"] == {"capacity": 2, "stop-runs-on": 5}


async def test_one_seed_is_one_story() -> None:
    async def story() -> list[int]:
        async with opened("error-500", seed=7) as api:
            return [(await api.ask("GET", "/locations")).status_code for _ in range(50)]

    assert await story() == await story()
