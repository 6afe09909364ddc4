"""The stand-in as a vendor: what its reference promises. Each exchange is held against the specification too."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.standins.hetzner_api import ACTION_SECONDS, KEY, SERVER, Api, opened
from tinyfat.standins.hetzner.cloud import Options


@pytest.fixture
async def api() -> AsyncIterator[Api]:
    async with opened() as made:
        yield made


async def test_a_server_takes_its_time_to_run(api: Api) -> None:
    made = await api.post("/servers", name="ada.example.org", **SERVER, labels={"agent": "ada"})
    number = made["server"]["id"]
    assert made["server"]["status"] == "initializing"
    assert made["root_password"]
    assert [each["command"] for each in made["next_actions"]] == ["start_server"]
    api.cloud.clock.advance(ACTION_SECONDS / 2)
    assert (await api.get(f"/actions/{made['action']['id']}"))["action"]["progress"] == 50
    assert (await api.get(f"/servers/{number}"))["server"]["locked"] is True

    await api.later()

    server = (await api.get("/servers?name=ada.example.org"))["servers"][0]
    assert (server["status"], server["locked"]) == ("running", False)
    truth = await api.truth()
    assert truth["machines"] == [
        {"server": number, "running": True, "state": "running", "ipv4": server["public_net"]["ipv4"]["ip"]}
    ]
    assert (await api.get(f"/servers/{number}/actions?sort=id:desc"))["actions"][0]["command"] == "start_server"


async def test_a_server_is_stopped_and_started_and_ends(api: Api) -> None:
    server = await api.server()
    stopped = await api.off(server)
    assert stopped["status"] == "off"
    assert [machine["running"] for machine in (await api.truth())["machines"]] == [False]
    assert (await api.action(await api.post(f"/servers/{server['id']}/actions/poweron")))["status"] == "success"
    assert (await api.get(f"/servers/{server['id']}"))["server"]["status"] == "running"

    ended = await api.delete(f"/servers/{server['id']}")

    assert (await api.get(f"/servers/{server['id']}"))["server"]["status"] == "deleting"
    assert (await api.action(ended))["status"] == "success"
    assert await api.refused("GET", f"/servers/{server['id']}") == (404, "not_found")
    truth = await api.truth()
    assert (truth["machines"], truth["addresses"], truth["primary_ips"]) == ([], [], {})


@pytest.mark.parametrize("way", ["shutdown", "reboot", "reset", "poweroff", "poweron"])
async def test_what_is_locked_is_not_touched(api: Api, way: str) -> None:
    server = await api.server()
    await api.post(f"/servers/{server['id']}/actions/reboot")
    assert await api.refused("POST", f"/servers/{server['id']}/actions/{way}", {}) == (423, "locked")
    assert await api.refused("DELETE", f"/servers/{server['id']}") == (423, "locked")


async def test_a_shutdown_is_only_asked_for(api: Api) -> None:
    """The action's success says that it was asked; the status, whether it did."""
    server = await api.server()
    await api.post(f"/servers/{server['id']}/actions/shutdown")
    await api.later()
    assert (await api.get(f"/servers/{server['id']}"))["server"]["status"] == "off"


@pytest.mark.parametrize(
    ("body", "refusal"),
    [
        ({"name": "under_score"}, (422, "invalid_input")),
        ({"name": ""}, (422, "invalid_input")),
        ({"name": "there"}, (409, "uniqueness_error")),
        ({"server_type": "cx9000"}, (422, "invalid_input")),
        ({"image": "debian-3"}, (422, "invalid_input")),
        ({"location": "mars"}, (422, "invalid_input")),
        ({"location": "ash"}, (422, "invalid_input")),  # cx23 is sold in Europe alone
        ({"server_type": "cax11", "image": "ubuntu-24.04"}, (422, "invalid_input")),
        ({"user_data": "x" * 40_000}, (422, "invalid_input")),
        ({"labels": {"a b": "c"}}, (422, "invalid_input")),
        ({"ssh_keys": ["nobody"]}, (422, "invalid_input")),
        ({"firewalls": [{"firewall": 7}]}, (422, "invalid_input")),
        ({"public_net": {"ipv4": 7}}, (422, "invalid_input")),
        ({"datacenter": "fsn1-dc14"}, (422, "invalid_input")),
    ],
)
async def test_orders_that_cannot_be(api: Api, body: dict[str, object], refusal: tuple[int, str]) -> None:
    await api.server("there")
    assert await api.refused("POST", "/servers", {"name": "ada", **SERVER, **body}) == refusal
    assert list((await api.truth())["servers"]) == ["there"]


async def test_a_project_has_a_limit(api: Api) -> None:
    api.cloud.options = Options(server_limit=1, address_limit=3)
    await api.server()
    assert await api.refused("POST", "/servers", {"name": "bob", **SERVER}) == (403, "resource_limit_exceeded")
    await api.address("one")
    body = {"name": "two", "type": "ipv4", "location": "fsn1", "assignee_type": "server"}
    assert await api.refused("POST", "/primary_ips", body) == (403, "resource_limit_exceeded")


async def test_an_address_of_ones_own_moves_between_servers_that_are_off(api: Api) -> None:
    own = (await api.post("/primary_ips", name="ada", type="ipv4", location="fsn1", assignee_type="server"))[
        "primary_ip"
    ]
    first = await api.server("first", public_net={"ipv4": own["id"], "enable_ipv6": False})
    second = await api.server("second", public_net={"enable_ipv4": False})
    assert first["public_net"]["ipv4"]["ip"] == own["ip"]
    path = f"/primary_ips/{own['id']}/actions"
    assert await api.refused("POST", f"{path}/unassign") == (422, "server_not_stopped")
    await api.off(first)
    await api.off(second)
    give = {"assignee_id": second["id"], "assignee_type": "server"}
    assert await api.refused("POST", f"{path}/assign", give) == (422, "primary_ip_already_assigned")
    await api.post(f"{path}/unassign")
    await api.later()
    await api.post(f"{path}/assign", **give)
    await api.later()

    assert (await api.get(f"/primary_ips/{own['id']}"))["primary_ip"]["assignee_id"] == second["id"]
    assert (await api.get(f"/servers/{first['id']}"))["server"]["public_net"]["ipv4"] is None
    assert await api.refused("POST", f"/servers/{first['id']}/actions/poweron") == (422, "unsupported_error")
    await api.post(f"/servers/{second['id']}/actions/poweron")
    await api.later()
    machines = {machine["server"]: machine["ipv4"] for machine in (await api.truth())["machines"]}
    assert machines[second["id"]] == own["ip"]


async def test_an_address_outlives_its_server_unless_it_was_made_with_it(api: Api) -> None:
    own = (await api.post("/primary_ips", name="ada", type="ipv4", location="fsn1", assignee_type="server"))[
        "primary_ip"
    ]
    server = await api.server(public_net={"ipv4": own["id"]})
    assert await api.refused("DELETE", f"/primary_ips/{own['id']}") == (422, "must_be_unassigned")
    await api.delete(f"/servers/{server['id']}")
    await api.later()

    assert (await api.truth())["primary_ips"] == {"ada": own["ip"]}
    assert (await api.get(f"/primary_ips?ip={own['ip']}"))["primary_ips"][0]["assignee_id"] is None
    await api.delete(f"/primary_ips/{own['id']}")
    assert (await api.truth())["addresses"] == []


async def test_addresses_that_do_not_fit(api: Api) -> None:
    six = (await api.post("/primary_ips", name="six", type="ipv6", location="fsn1", assignee_type="server"))[
        "primary_ip"
    ]
    taken = await api.server("there", public_net={"ipv6": six["id"], "enable_ipv4": False})
    for net, code in (
        ({"ipv4": six["id"]}, "primary_ip_version_mismatch"),
        ({"ipv6": six["id"]}, "primary_ip_assigned"),
    ):
        body = {"name": "ada", **SERVER, "public_net": net}
        assert await api.refused("POST", "/servers", body) == (422, code)
    await api.delete(f"/servers/{taken['id']}")
    await api.later()
    elsewhere = {"name": "ada", **SERVER, "location": "nbg1", "public_net": {"ipv6": six["id"]}}
    assert await api.refused("POST", "/servers", elsewhere) == (422, "primary_ip_datacenter_mismatch")


async def test_reverse_names(api: Api) -> None:
    server = await api.server()
    net = server["public_net"]
    first = net["ipv6"]["ip"].replace("::/64", "::1")
    for ip in (net["ipv4"]["ip"], first):
        await api.post(f"/servers/{server['id']}/actions/change_dns_ptr", ip=ip, dns_ptr="ada.example.org")
        await api.later()
    path = f"/primary_ips/{net['ipv4']['id']}/actions/change_dns_ptr"
    await api.post(path, ip=net["ipv4"]["ip"], dns_ptr="eve.example.org")
    await api.later()

    now = (await api.get(f"/servers/{server['id']}"))["server"]["public_net"]
    assert now["ipv4"]["dns_ptr"] == "eve.example.org"
    assert now["ipv6"]["dns_ptr"] == [{"ip": first, "dns_ptr": "ada.example.org"}]
    assert await api.refused("POST", path, {"ip": "192.0.2.1", "dns_ptr": "x"}) == (422, "invalid_input")


async def test_firewalls(api: Api) -> None:
    rule = {"direction": "in", "protocol": "tcp", "port": "22", "source_ips": ["0.0.0.0/0", "::/0"]}
    made = (await api.post("/firewalls", name="ssh", rules=[rule], labels={"a": "b"}))["firewall"]
    server = await api.server(firewalls=[{"firewall": made["id"]}], labels={"pool": "warm"})
    assert server["public_net"]["firewalls"] == [{"id": made["id"], "status": "applied"}]
    assert await api.refused("DELETE", f"/firewalls/{made['id']}") == (422, "resource_in_use")
    here = [{"type": "server", "server": {"id": server["id"]}}]
    path = f"/firewalls/{made['id']}/actions"
    again = await api.refused("POST", f"{path}/apply_to_resources", {"apply_to": here})
    assert again == (422, "firewall_already_applied")
    await api.post(f"{path}/set_rules", rules=[])
    await api.post(f"{path}/remove_from_resources", remove_from=here)
    await api.later()
    by_label = [{"type": "label_selector", "label_selector": {"selector": "pool=warm"}}]
    await api.post(f"{path}/apply_to_resources", apply_to=by_label)
    await api.later()
    managed = await api.refused("POST", f"{path}/remove_from_resources", {"remove_from": here})
    assert managed == (422, "firewall_managed_by_label_selector")
    assert (await api.get(f"/firewalls/{made['id']}"))["firewall"]["rules"] == []
    await api.post(f"{path}/remove_from_resources", remove_from=by_label)
    await api.later()
    await api.put(f"/firewalls/{made['id']}", name="other", labels={})
    await api.delete(f"/firewalls/{made['id']}")


@pytest.mark.parametrize(
    "wrong",
    [
        {"port": None},
        {"port": "0"},
        {"port": "70000"},
        {"protocol": "icmp"},
        {"source_ips": ["192.0.2.1/24"]},
        {"source_ips": ["192.0.2.1"]},
        {"source_ips": []},
        {"destination_ips": ["0.0.0.0/0"]},
        {"direction": "sideways"},
    ],
)
async def test_rules_that_cannot_be(api: Api, wrong: dict[str, object]) -> None:
    rule = {"direction": "in", "protocol": "tcp", "port": "22", "source_ips": ["0.0.0.0/0"], **wrong}
    assert await api.refused("POST", "/firewalls", {"name": "f", "rules": [rule]}) == (422, "invalid_input")


async def test_ssh_keys(api: Api) -> None:
    key = (await api.post("/ssh_keys", name="ada", public_key=KEY))["ssh_key"]
    assert key["fingerprint"].count(":") == 15
    assert await api.refused("POST", "/ssh_keys", {"name": "eve", "public_key": KEY}) == (409, "uniqueness_error")
    assert await api.refused("POST", "/ssh_keys", {"name": "eve", "public_key": "x"}) == (422, "invalid_input")
    made = await api.post("/servers", name="ada", **SERVER, ssh_keys=["ada"])
    assert made["root_password"] is None
    await api.put(f"/ssh_keys/{key['id']}", name="bob", labels={"a": "b"})
    assert [each["name"] for each in (await api.get("/ssh_keys?label_selector=a=b"))["ssh_keys"]] == ["bob"]
    await api.delete(f"/ssh_keys/{key['id']}")


async def test_an_image_is_made_of_a_server_and_makes_another(api: Api) -> None:
    server = await api.server()
    body = {"type": "snapshot", "description": "baked", "labels": {"v": "1"}}
    made = await api.post(f"/servers/{server['id']}/actions/create_image", **body)
    number = made["image"]["id"]
    early = {"name": "bob", **SERVER, "image": str(number)}
    assert await api.refused("POST", "/servers", early) == (422, "invalid_input")
    assert await api.refused("DELETE", f"/images/{number}") == (423, "locked")
    await api.later()

    found = (await api.get("/images?type=snapshot&label_selector=v=1"))["images"]
    assert [(image["id"], image["status"]) for image in found] == [(number, "available")]
    assert found[0]["image_size"] > 0
    second = await api.server("bob", image=str(number))
    assert second["image"]["description"] == "baked"
    rebuilt = await api.post(f"/servers/{second['id']}/actions/rebuild", image="debian-13")
    assert (await api.action(rebuilt))["status"] == "success"
    await api.post(f"/images/{number}/actions/change_protection", delete=True)
    assert await api.refused("DELETE", f"/images/{number}") == (423, "protected")
    await api.post(f"/images/{number}/actions/change_protection", delete=False)
    await api.put(f"/images/{number}", description="old", labels={})
    await api.later()
    await api.delete(f"/images/{number}")
    assert await api.refused("GET", f"/images/{number}") == (404, "not_found")


async def test_volumes(api: Api) -> None:
    server = await api.server()
    made = await api.post("/volumes", name="data", size=10, server=server["id"], format="ext4")
    number = made["volume"]["id"]
    await api.later()
    assert (await api.get(f"/volumes/{number}"))["volume"]["server"] == server["id"]
    assert (await api.refused("DELETE", f"/volumes/{number}"))[0] == 423
    await api.post(f"/volumes/{number}/actions/detach")
    await api.later()
    await api.post(f"/volumes/{number}/actions/resize", size=20)
    await api.post(f"/volumes/{number}/actions/change_protection", delete=True)
    await api.later()
    assert await api.refused("DELETE", f"/volumes/{number}") == (423, "protected")
    await api.post(f"/volumes/{number}/actions/change_protection", delete=False)
    await api.later()
    await api.post(f"/volumes/{number}/actions/attach", server=server["id"])
    await api.later()
    assert (await api.get(f"/servers/{server['id']}"))["server"]["volumes"] == [number]
    await api.delete(f"/servers/{server['id']}")
    await api.later()
    assert (await api.get(f"/volumes/{number}"))["volume"]["server"] is None
    await api.put(f"/volumes/{number}", name="other")
    await api.delete(f"/volumes/{number}")
    for size, place in ((9, "fsn1"), (10, "mars")):
        body = {"name": "x", "size": size, "location": place}
        assert await api.refused("POST", "/volumes", body) == (422, "invalid_input")


async def test_protected_servers_stay(api: Api) -> None:
    server = await api.server()
    await api.post(f"/servers/{server['id']}/actions/change_protection", delete=True, rebuild=True)
    await api.later()
    assert await api.refused("DELETE", f"/servers/{server['id']}") == (423, "protected")


async def test_what_is_for_sale(api: Api) -> None:
    pricing = (await api.get("/pricing"))["pricing"]
    types = (await api.get("/server_types"))["server_types"]
    assert {kind["name"] for kind in pricing["server_types"]} == {kind["name"] for kind in types}
    small = next(kind for kind in types if kind["name"] == "cx23")
    assert (await api.get(f"/server_types/{small['id']}"))["server_type"] == small
    sold = {price["location"] for price in small["prices"]}
    assert sold == {place["name"] for place in small["locations"]} == {"fsn1", "nbg1", "hel1"}
    place = (await api.get("/locations?name=hel1"))["locations"][0]
    assert (await api.get(f"/locations/{place['id']}"))["location"]["city"] == "Helsinki"
    centre = (await api.get("/datacenters"))["datacenters"][0]
    assert (await api.get(f"/datacenters/{centre['id']}"))["datacenter"] == centre
    assert {image["type"] for image in (await api.get("/images?architecture=x86"))["images"]} == {"system"}


async def test_pages_filters_and_order(api: Api) -> None:
    for number in range(7):
        await api.server(f"s{number}", labels={"even": str(number % 2 == 0).lower()})
    first = await api.ask("GET", "/servers?per_page=3&sort=name:desc")
    assert [server["name"] for server in first.json()["servers"]] == ["s6", "s5", "s4"]
    assert first.json()["meta"]["pagination"] == {
        "page": 1,
        "per_page": 3,
        "previous_page": None,
        "next_page": 2,
        "last_page": 3,
        "total_entries": 7,
    }
    assert 'page=2>; rel="next"' in first.headers["Link"]
    last = await api.get("/servers?per_page=3&page=3&sort=name:desc")
    assert [server["name"] for server in last["servers"]] == ["s0"]
    even = await api.get("/servers?label_selector=even%3Dtrue&status=running&status=off")
    assert len(even["servers"]) == 4
    for wrong in ("per_page=51", "page=0", "sort=colour", "label_selector=a%20b"):
        assert await api.refused("GET", f"/servers?{wrong}") == (422, "invalid_input")


async def test_actions_are_asked_for_by_id(api: Api) -> None:
    server = await api.server()
    known = (await api.get("/servers/actions"))["actions"]
    numbers = [action["id"] for action in known]
    several = await api.get(f"/actions?id={numbers[0]}&id={numbers[1]}")
    assert [action["id"] for action in several["actions"]] == numbers[:2]
    assert await api.refused("GET", "/actions") == (410, "deprecated_api_endpoint")
    assert (await api.get(f"/servers/{server['id']}/actions/{numbers[0]}"))["action"]["id"] == numbers[0]
    assert await api.refused("GET", "/actions/1") == (404, "not_found")


async def test_who_has_no_token_is_told_nothing(api: Api) -> None:
    for header in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic eDp5"}):
        api.client.headers.pop("Authorization", None)
        response = await api.ask("GET", "/servers", headers=header)
        assert (response.status_code, response.json()["error"]["code"]) == (401, "unauthorized")


async def test_bodies_that_are_none(api: Api) -> None:
    for content in ("{", "[]", "[" * 100_000):
        response = await api.client.post("/v1/servers", content=content)
        assert (response.status_code, response.json()["error"]["code"]) == (400, "json_error")
    response = await api.client.patch("/v1/servers")
    assert (response.status_code, response.json()["error"]["code"]) == (405, "method_not_allowed")
    assert (await api.client.get("/v1/floating_ips")).status_code == 404


async def test_so_many_requests_an_hour() -> None:
    async with opened(requests_per_hour=4) as api:
        seen = [await api.ask("GET", "/locations") for _ in range(5)]
        assert [response.status_code for response in seen] == [200] * 4 + [429]
        assert [response.headers["RateLimit-Remaining"] for response in seen] == ["3", "2", "1", "0", "0"]
        assert seen[0].headers["RateLimit-Limit"] == "4"
        assert int(seen[4].headers["RateLimit-Reset"]) == int(api.cloud.clock()) + 3600
        assert seen[4].json()["error"]["code"] == "rate_limit_exceeded"
        api.cloud.clock.advance(900)
        assert [(await api.ask("GET", "/locations")).status_code for _ in range(2)] == [200, 429]


async def test_a_machine_that_ends_from_within_is_seen_to_be_off(api: Api) -> None:
    server = await api.server()
    await api.cloud.machines.stop(api.cloud.machine_name(server["id"]))
    assert (await api.get(f"/servers/{server['id']}"))["server"]["status"] == "off"
