"""What a crash leaves on disk is found again: leases, records, images. No root is needed."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.machine_hosts.base_image import as_built
from tinyfat.machine_hosts import booted
from tinyfat.machine_hosts.images import PARENTS_MAX, ImageFolder
from tinyfat.machine_hosts.leases import Leases
from tinyfat.machine_hosts.machine_host import HostAddress, HostFailed, HostFull, HostOrder, HostRefused
from tinyfat.machine_hosts.programs import require, run
from tinyfat.machine_hosts.records import RECORD, RecordFolder

AT = datetime(2026, 11, 23, tzinfo=UTC)
POOL = [HostAddress("10.213.0.2"), HostAddress("10.213.0.3")]


def leases(folder: Path) -> Leases:
    return Leases(folder, POOL, lambda: AT)


async def test_a_lease_outlives_its_process_and_no_address_is_given_twice(tmp_path: Path) -> None:
    made = await asyncio.gather(*(leases(tmp_path).lease(name) for name in ("a", "b", "a", "b")))
    assert made[0] == made[2] and made[1] == made[3] and made[0] != made[1]
    assert leases(tmp_path).all()["a"].leased_at == AT
    with pytest.raises(HostFull, match="All 2 addresses"):
        await leases(tmp_path).lease("c")
    await leases(tmp_path).release("a")
    await leases(tmp_path).release("a")
    assert await leases(tmp_path).lease("c") == made[0]


async def test_leases_that_cannot_be_read_are_not_taken_for_none(tmp_path: Path) -> None:
    (tmp_path / "leases.json").write_text('{"a": 7}')
    with pytest.raises(HostFailed, match="cannot be read"):
        await leases(tmp_path).lease("b")


def order(name: str = "one") -> HostOrder:
    return HostOrder(name, "debian-12", "#cloud-config\n", "ada.example.org", 1024, None, {"installation": "ours"})


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    records = RecordFolder(tmp_path)
    made = records.make(order(), POOL[0], AT)
    assert records.read("one") is None and records.names() == []  # it is whole only with its record
    records.write(made)
    assert RecordFolder(tmp_path).read("one") == made
    assert made.own_address and made.labels == {"installation": "ours"}
    assert (tmp_path / "one" / RECORD).stat().st_mode & 0o077 == 0


def test_what_a_crash_left_half_made_is_made_anew(tmp_path: Path) -> None:
    records = RecordFolder(tmp_path)
    records.make(order(), POOL[0], AT)
    (tmp_path / "one" / "left").write_text("by the crash")
    second = records.make(order(), POOL[0], AT)
    records.write(second)
    assert not (tmp_path / "one" / "left").exists()
    records.discard("one")
    assert records.read("one") is None
    records.empty_trash()
    assert list(tmp_path.iterdir()) == []


def test_a_record_that_cannot_be_read_is_not_taken_for_gone(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / RECORD).write_text("{")
    with pytest.raises(HostFailed, match="Remove its folder by hand"):
        RecordFolder(tmp_path).read("one")


async def filled(content: Path) -> None:
    content.mkdir()
    (content / "file").write_text("x" * 10_000)


async def test_an_image_is_made_once_by_many(tmp_path: Path) -> None:
    times: list[Path] = []

    async def fill(content: Path) -> None:
        times.append(content)
        await filled(content)

    made = await asyncio.gather(*(ImageFolder(tmp_path).add("debian-12", "", AT, fill) for _ in range(3)))
    assert len(times) == 1 and made[0] == made[1] == made[2]
    assert made[0].bytes >= 10_000 and (made[0].content / "file").is_file()


async def test_an_image_that_could_not_be_made_leaves_nothing(tmp_path: Path) -> None:
    async def fill(content: Path) -> None:
        await filled(content)
        raise HostFailed("the network is away")

    with pytest.raises(HostFailed, match="away"):
        await ImageFolder(tmp_path).add("debian-12", "", AT, fill)
    assert ImageFolder(tmp_path).all() == []
    assert not list(tmp_path.glob(".partial*"))


async def test_an_image_stays_while_something_is_made_of_it(tmp_path: Path) -> None:
    images, record = ImageFolder(tmp_path / "images"), tmp_path / "machines" / "one" / RECORD
    await images.add("base", "", AT, filled)
    await images.add("baked", "base", AT, filled)
    record.parent.mkdir(parents=True)
    record.write_text("{}")
    images.used_by("baked", record)
    images.used_by("baked", record)
    with pytest.raises(HostRefused, match="baked lies upon it"):
        images.remove("base")
    with pytest.raises(HostRefused, match="machine one is made of it"):
        images.remove("baked")
    record.unlink()
    images.remove("baked")
    images.remove("base")
    images.remove("base")
    assert images.all() == []


async def test_a_chain_of_images_has_an_end(tmp_path: Path) -> None:
    images, parent = ImageFolder(tmp_path), ""
    for number in range(PARENTS_MAX + 2):
        await images.add(f"image-{number}", parent, AT, filled)
        parent = f"image-{number}"
    assert [one.name for one in images.chain("image-2")] == ["image-2", "image-1", "image-0"]
    with pytest.raises(HostRefused, match="build it anew"):
        images.chain(parent)
    with pytest.raises(HostRefused, match="tinyfat image build"):
        images.chain("never-made")
    with pytest.raises(HostRefused):
        images.read("../etc")


async def test_a_program_says_why_it_failed_and_does_not_run_for_ever() -> None:
    assert await run(["sh", "-c", "echo out"]) == "out\n"
    with pytest.raises(HostFailed, match="ended with 3: words"):
        await run(["sh", "-c", "echo words >&2; exit 3"])
    with pytest.raises(HostFailed, match=r"did not end within 0\.05 s"):
        await run(["sleep", "30"], seconds=0.05)
    with pytest.raises(HostFailed, match="cannot be started"):
        await run(["tinyfat-no-such-program"])


def test_a_missing_program_is_named_by_its_package() -> None:
    require({"sh": "dash"})
    with pytest.raises(HostRefused, match="apt-get install -y no-such-package"):
        require({"tinyfat-no-such-program": "no-such-package"})


async def test_an_image_as_it_was_built_has_nothing_frozen_in_it(tmp_path: Path) -> None:
    """Whoever measures or tries a boot must not get a clone of what somebody else froze."""

    async def fill(content: Path) -> None:
        content.mkdir()
        (content / "disk.qcow2").write_text("a disk")

    image = await ImageFolder(tmp_path / "shared").add("debian-12", "", AT, fill)
    frozen = image.folder / "booted-0123abcd"
    frozen.mkdir()
    (frozen / booted.STATE).touch()
    own = ImageFolder(tmp_path / "own")
    (found,) = own.chain(as_built(image, own))
    assert booted.found(image, "0123abcd") is not None and booted.found(found, "0123abcd") is None
    assert not booted.outdated(found)
    assert (found.content / "disk.qcow2").read_text() == "a disk" and found.created_at == AT
