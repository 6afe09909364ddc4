"""The pure parts: command lines, files for systemd, what the kernel says about itself."""

from __future__ import annotations

import ipaddress
import json
import shlex
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyfat.machine_hosts.cgroups import hierarchies
from tinyfat.machine_hosts.images import ImageOnDisk
from tinyfat.machine_hosts.machine_host import HostAddress, HostRefused
from tinyfat.machine_hosts.networks import NETWORK_V4, NETWORK_V6, Subnet
from tinyfat.machine_hosts.nspawn import launch_script, nspawn_argv
from tinyfat.machine_hosts.qemu_command import kvm_works, qemu_argv
from tinyfat.machine_hosts.records import Record, checked_name
from tinyfat.machine_hosts.rootfs import BaseRecipe
from tinyfat.machine_hosts.seed import meta_data

AT = datetime(2026, 11, 23, tzinfo=UTC)
GIB = 1024**3
RECORD = Record("one", "debian-12", "ada.example.org", GIB, AT, "one-abc", HostAddress("10.213.7.9"), True)
HYBRID = """\
tmpfs /sys/fs/cgroup tmpfs rw,mode=755 0 0
cgroup /sys/fs/cgroup/memory cgroup rw,relatime,memory 0 0
cgroup /sys/fs/cgroup/systemd cgroup rw,relatime,name=systemd 0 0
cgroup2 /sys/fs/cgroup/unified cgroup2 rw,relatime 0 0
"""
ONE = "cgroup2 /sys/fs/cgroup cgroup2 rw,nosuid 0 0\n"


def test_both_layouts_of_control_groups_are_understood() -> None:
    hybrid, one = hierarchies(HYBRID), hierarchies(ONE)
    assert hybrid.tracking == (Path("/sys/fs/cgroup/unified"), Path("/sys/fs/cgroup/systemd"))
    assert (hybrid.memory, hybrid.memory_v2) == (Path("/sys/fs/cgroup/memory"), False)
    assert one.tracking == (Path("/sys/fs/cgroup"),)
    assert (one.memory, one.memory_v2) == (Path("/sys/fs/cgroup"), True)


def test_kvm_is_used_only_where_an_ordinary_kernel_runs_under_it() -> None:
    assert kvm_works(True, "flags : fpu vmx sse", frozenset({"kvm", "kvm_intel"}))
    assert kvm_works(True, "flags : fpu svm sse", frozenset({"kvm", "kvm_amd"}))
    assert not kvm_works(False, "flags : fpu vmx", frozenset({"kvm"}))
    assert not kvm_works(True, "flags : fpu svme", frozenset({"kvm"}))
    assert not kvm_works(True, "flags : fpu vmx", frozenset({"kvm", "kvm_pvm"}))


@given(st.integers(0, 255), st.integers(1, 251))
def test_every_address_is_in_its_own_subnet(number: int, host: int) -> None:
    address = Subnet(number).address(host)
    assert ipaddress.ip_address(address.ipv4) in ipaddress.ip_network(f"10.213.{number}.0/24")
    assert ipaddress.ip_address(address.ipv4) in NETWORK_V4
    assert ipaddress.ip_address(address.ipv6) in NETWORK_V6
    others = [Subnet(other).address(host) for other in (number - 1, number + 1) if 0 <= other < 256]
    assert address not in others


def test_a_machines_interface_has_what_it_was_given_and_nothing_else() -> None:
    subnet = Subnet(7)
    both = subnet.interface_file(subnet.address(9))
    assert "Address=10.213.7.9/24\n" in both and "Gateway=10.213.7.1\n" in both
    assert "Address=fd54:6661:7400:7::9/64\n" in both and "Gateway=fd54:6661:7400:7::1\n" in both
    assert "fd54" not in subnet.interface_file(HostAddress("10.213.7.9"))
    assert "10.213" not in subnet.interface_file(HostAddress("", "fd54:6661:7400:7::9"))


@given(st.text(max_size=70))
def test_a_name_that_could_leave_its_folder_is_refused(name: str) -> None:
    try:
        checked_name(name)
    except HostRefused:
        return
    assert 0 < len(name) <= 63 and all(c.isascii() and (c.isalnum() or c == "-") for c in name)


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "-a", "A", "a\n", "a" * 64])
def test_names_that_cannot_be(name: str) -> None:
    with pytest.raises(HostRefused):
        checked_name(name)


def test_the_launcher_quotes_what_a_folder_may_be_called() -> None:
    folder = Path("/home/o'brien & co/machines/one")
    script = launch_script(RECORD, folder, "/images/debian", "tinyfat-0", [Path("/c/launch")], [Path("/c/machine")])
    words = shlex.split(script)
    inner = words[words.index("-c") + 1]
    mount, _, rest = inner.partition(" || exit; ")
    assert shlex.split(mount)[-1] == f"{folder}/root"
    machine = shlex.split(rest)
    assert shlex.split(machine[machine.index("-c") + 1].rstrip(";"))[
        -len(nspawn_argv(RECORD, folder, "tinyfat-0")) :
    ] == (nspawn_argv(RECORD, folder, "tinyfat-0"))


def test_a_container_has_a_network_of_its_own_and_reads_its_seed() -> None:
    argv = nspawn_argv(RECORD, Path("/machines/one"), "tinyfat-0")
    assert "--network-bridge=tinyfat-0" in argv
    assert "--bind-ro=/machines/one/seed:/var/lib/cloud/seed/nocloud" in argv
    (machine,) = [word for word in argv if word.startswith("--machine=")]
    assert len("vb-" + machine.removeprefix("--machine=")) <= 15  # the kernel's limit for an interface's name


@pytest.mark.parametrize(("published", "ports"), [(True, (22, 443)), (False, (22,))])
def test_a_virtual_machine_is_forwarded_what_is_open_and_no_more(published: bool, ports: tuple[int, ...]) -> None:
    image = ImageOnDisk("debian", "", AT, 1, Path("/images/debian"))
    record = replace(RECORD, published=published)
    argv = qemu_argv(record, Path("/machines/a,b"), image, "tinyfat-x-one", "tcg")
    (network,) = [word for word in argv if word.startswith("user,")]
    assert [part for part in network.split(",") if part.startswith("hostfwd")] == [
        f"hostfwd=tcp:10.213.7.9:{port}-:{port}" for port in ports
    ]
    assert argv[argv.index("-m") + 1] == "1024"
    assert "if=none,id=d0,file=/machines/a,,b/disk.qcow2,format=qcow2,discard=unmap" in argv
    assert not any(word.startswith("kvm") for word in argv)


def test_cloud_init_sees_another_instance_each_time() -> None:
    assert json.loads(meta_data(RECORD)) == {"instance-id": "one-abc", "local-hostname": "ada.example.org"}


def test_another_recipe_is_another_base() -> None:
    assert BaseRecipe(("tinyfat",)).name == BaseRecipe(("tinyfat",)).name
    assert len({BaseRecipe().name, BaseRecipe(("tinyfat",)).name, BaseRecipe(("tinyfat",), "/var/lib/x").name}) == 3
