"""What QEMU is started with: https://www.qemu.org/docs/master/system/invocation.html"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from tinyfat.machine_hosts.disks import INITRD, KERNEL
from tinyfat.machine_hosts.images import ImageOnDisk
from tinyfat.machine_hosts.records import Record

SSH_PORT, HTTPS_PORT = 22, 443
QMP_SOCKET, WAKE_SOCKET = "qmp.socket", "wake.socket"  # in the machine's folder
WAKE_PORT = "org.tinyfat.wake"  # as the guest names it
TRANSLATED_MEGABYTES = 256  # QEMU's cache of translated code, without KVM
_MEBIBYTE = 1024**2


@dataclass(frozen=True, slots=True)
class Memory:
    """A guest's memory that is a file. Not `shared`: the guest's own, the file is only read, and it waits for the state
    that belongs to it."""

    file: Path
    shared: bool

    def argv(self, bytes_: int) -> list[str]:
        backend = f"memory-backend-file,id=m0,size={bytes_},mem-path={escaped(self.file)}"
        if self.shared:
            return ["-object", f"{backend},share=on"]
        return ["-object", f"{backend},share=off", "-incoming", "defer", "-S"]


def kvm_works(usable: bool, flags: str, modules: frozenset[str]) -> bool:
    """`usable`: /dev/kvm can be opened; `flags`: of /proc/cpuinfo; `modules`: of the kernel.

    A /dev/kvm that opens is not enough: under kvm_pvm an ordinary kernel hangs.
    """
    return usable and bool({"vmx", "svm"} & set(flags.split())) and "kvm_pvm" not in modules


def qemu_argv(
    record: Record, folder: Path, image: ImageOnDisk, name: str, accelerator: str, memory: Memory | None = None
) -> list[str]:
    """`memory`: None is QEMU's own. Whatever is changed here is changed in what booted machines are known by, too: a
    clone's devices are those of the machine it was cloned from (see machine_hosts/booted)."""
    kvm = accelerator == "kvm"
    forwards = "".join(
        f",hostfwd=tcp:{record.address.ipv4}:{port}-:{port}" for port in ports(record) if record.address.ipv4
    )
    return [
        "qemu-system-x86_64", "-name", name, "-machine", "q35" + (",memory-backend=m0" if memory else ""),
        *(memory.argv(record.memory_bytes) if memory else ()),
        "-cpu", "host" if kvm else "max", "-smp", "2",
        "-accel", "kvm" if kvm else f"tcg,thread=multi,tb-size={TRANSLATED_MEGABYTES}",
        "-m", str(record.memory_bytes // _MEBIBYTE), "-nodefaults", "-no-user-config", "-display", "none",
        "-kernel", str(image.content / KERNEL), "-initrd", str(image.content / INITRD),
        "-append", "root=/dev/vda rw console=ttyS0 net.ifnames=0 quiet",
        "-drive", f"if=none,id=d0,file={escaped(folder / 'disk.qcow2')},format=qcow2,discard=unmap",
        "-device", "virtio-blk-pci,drive=d0",
        "-drive", f"if=none,id=d1,file={escaped(folder / 'seed.iso')},format=raw,readonly=on",
        "-device", "virtio-blk-pci,drive=d1",
        "-netdev", f"user,id=n0,ipv6=off{forwards}", "-device", "virtio-net-pci,netdev=n0",
        "-device", "virtio-rng-pci", "-serial", f"file:{folder / 'console.log'}",
        "-device", "virtio-serial-pci", "-chardev", f"socket,id=c0,path={WAKE_SOCKET},server=on,wait=off",
        "-device", f"virtserialport,chardev=c0,name={WAKE_PORT}",
        "-qmp", f"unix:{QMP_SOCKET},server=on,wait=off",
        "-pidfile", str(folder / "qemu.pid"), "-sandbox", "on,obsolete=deny", "-daemonize",
    ]  # fmt: skip


def ports(record: Record) -> tuple[int, ...]:
    """Which of its ports QEMU forwards: one that it does is open to whoever asks, whatever the guest says."""
    return (SSH_PORT, HTTPS_PORT) if record.published else (SSH_PORT,)


def escaped(path: Path) -> str:
    """In QEMU's options a comma is written twice."""
    return str(path).replace(",", ",,")


def processor() -> tuple[bool, str, frozenset[str]]:
    flags = next((line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("flags")), "")
    modules = frozenset(path.name for path in Path("/sys/module").iterdir())
    return os.access("/dev/kvm", os.R_OK | os.W_OK), flags, modules
