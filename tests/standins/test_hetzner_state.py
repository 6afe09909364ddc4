"""A stand-in that was ended and begun again."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from tests.standins.hetzner_api import ACTION_SECONDS, KEY, SERVER, opened
from tinyfat.standins.clock import Clock
from tinyfat.standins.hetzner.cloud import Cloud, Options
from tinyfat.standins.hetzner.state import FILE, StateUnreadable, restore, save


def cloud() -> Cloud:
    return Cloud(clock=Clock(lambda: 1_800_000_000.0), options=Options(action_seconds=ACTION_SECONDS))


async def test_all_of_it_is_known_again(tmp_path: Path) -> None:
    async with opened(cloud=cloud()) as api:
        firewall = (await api.post("/firewalls", name="ssh"))["firewall"]
        await api.post("/ssh_keys", name="ada", public_key=KEY)
        server = await api.server(firewalls=[{"firewall": firewall["id"]}], user_data="#cloud-config")
        await api.post(f"/servers/{server['id']}/actions/create_image", type="snapshot", description="baked")
        await api.later()
        await api.post("/volumes", name="data", size=10, server=server["id"])
        await api.post("/zones", name="example.org", mode="primary")
        await api.post("/zones/example.org/rrsets", name="ada", type="A", records=[{"value": "192.0.2.1"}])
        await api.later()
        before = (await api.truth(), await api.get("/servers"), await api.get("/servers/actions?per_page=50"))
        save(api.cloud, tmp_path)
    assert stat.S_IMODE((tmp_path / FILE).stat().st_mode) == 0o600

    second = cloud()
    assert restore(second, tmp_path) is True

    second.clock.advance(5 * 3 * ACTION_SECONDS)
    async with opened(cloud=second) as api:
        assert (await api.truth(), await api.get("/servers"), await api.get("/servers/actions?per_page=50")) == before
        made = await api.post("/firewalls", name="other")
        assert made["firewall"]["id"] == api.cloud.last_id
        assert [zone.name for zone in api.cloud.published.zones()] == ["example.org"]


async def test_what_was_cut_off_has_failed_and_can_be_removed(tmp_path: Path) -> None:
    async with opened(cloud=cloud()) as api:
        made = await api.post("/servers", name="ada", **SERVER)
        save(api.cloud, tmp_path)
    second = cloud()
    restore(second, tmp_path)
    async with opened(cloud=second) as api:
        action = await api.action(made)
        assert (action["status"], action["error"]["code"]) == ("error", "action_failed")
        following = (await api.get(f"/actions/{made['next_actions'][0]['id']}"))["action"]
        assert following["status"] == "error"
        assert (await api.get(f"/servers/{made['server']['id']}"))["server"]["status"] == "initializing"
        await api.delete(f"/servers/{made['server']['id']}")
        await api.later()
        assert (await api.truth())["servers"] == {}


def test_a_file_that_is_not_ours(tmp_path: Path) -> None:
    assert restore(cloud(), tmp_path) is False
    (tmp_path / FILE).write_text('{"servers": 7}')
    with pytest.raises(StateUnreadable, match="Mend or remove it"):
        restore(cloud(), tmp_path)
