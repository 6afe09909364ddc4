"""Runs inside a virtual machine that was booted to be cloned: says that it can be frozen, and after that makes of
whichever copy is woken a machine of its own. As root, by the system's Python; cloud-init is imported beforehand.

What every clone would share otherwise, and gets anew before anything else runs: the time, the kernel's randomness, the
machine-id, cloud-init's instance (from the seed that the clone was given, read from the disk anew), SSH host keys (made
by that instance). Kept in the image for reading, sent as text: see machine_hosts/booted.
"""

from __future__ import annotations

import fcntl
import gc
import glob
import importlib
import json
import os
import pkgutil
import shutil
import struct
import subprocess
import sys
import time
from collections.abc import Callable

PORT = "/dev/virtio-ports/org.tinyfat.wake"
PORT_SECONDS_MAX = 60.0
LOOK_SECONDS = 0.02
RNDADDENTROPY, RNDRESEEDCRNG = 0x40085203, 0x5207  # linux/random.h
STAGES = (["init", "--local"], ["init"], ["modules", "--mode", "config"], ["modules", "--mode", "final"])
FORGOTTEN = (
    "/var/lib/cloud/instance",
    *("/var/lib/cloud/instances", "/var/lib/cloud/sem", "/var/lib/cloud/data", "/run/cloud-init/sem"),
    *("/run/cloud-init/status.json", "/run/cloud-init/result.json", "/run/cloud-init/.instance-id"),
    *("/run/cloud-init/instance-data.json", "/run/cloud-init/instance-data-sensitive.json"),
    *("/var/lib/systemd/random-seed", "/var/log/cloud-init.log", "/var/log/cloud-init-output.log"),
)


def main() -> None:
    cloud_init = imported()
    port = opened()
    forget()
    os.sync()
    with open("/proc/sys/vm/drop_caches", "w") as caches:
        caches.write("3\n")  # the seed's blocks among them: a clone's disk holds another seed
    os.write(port, b"ready\n")
    word = json.loads(heard(port))
    renew(word["now"], bytes.fromhex(word["random"]))
    os.write(port, b"awake\n")
    os.close(port)
    for folder in glob.glob("/var/log/journal/*"):
        shutil.rmtree(folder, ignore_errors=True)  # named by the machine-id of before
    subprocess.run(["systemctl", "--no-block", "restart", "systemd-journald.service"], check=False)
    for stage in STAGES:
        run(cloud_init, stage)
    subprocess.run(["systemctl", "reset-failed", "ssh.service"], check=False)
    subprocess.run(["systemctl", "--no-block", "restart", "ssh.service"], check=False)


def imported() -> Callable[[list[str]], object]:
    """cloud-init's own entry; emulated, its imports are most of what a stage takes."""
    main = importlib.import_module("cloudinit.cmd.main")
    for name in ("cloudinit.sources.DataSourceNoCloud", "cloudinit.distros.debian"):
        importlib.import_module(name)
    package = importlib.import_module("cloudinit.config")
    for module in pkgutil.iter_modules(package.__path__):
        if module.name.startswith("cc_"):
            importlib.import_module("cloudinit.config." + module.name)
    gc.collect()
    gc.freeze()  # a stage's collections would copy every page of what was imported into its own process
    entry: Callable[[list[str]], object] = main.main
    return entry


def opened() -> int:
    deadline = time.monotonic() + PORT_SECONDS_MAX
    while not os.path.exists(PORT):
        if time.monotonic() > deadline:
            sys.exit("there is no " + PORT)
        time.sleep(LOOK_SECONDS)
    return os.open(PORT, os.O_RDWR)


def forget() -> None:
    """Also right where the copy is not woken but booted: then systemd and cloud-init see a first boot."""
    for path in FORGOTTEN:
        if os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path, ignore_errors=True)
        elif os.path.lexists(path):
            os.unlink(path)
    with open("/etc/machine-id", "w"):
        pass  # empty: to be made


def heard(port: int) -> bytes:
    """One line. While nobody is at the other end a read returns nothing at once."""
    line = b""
    while not line.endswith(b"\n"):
        piece = os.read(port, 4096)
        line += piece
        if not piece:
            time.sleep(LOOK_SECONDS)
    return line


def renew(now: float, random: bytes) -> None:
    time.clock_settime(time.CLOCK_REALTIME, now)
    with open("/dev/urandom", "wb", buffering=0) as source:
        fcntl.ioctl(source, RNDADDENTROPY, struct.pack("ii", 8 * len(random), len(random)) + random)
        fcntl.ioctl(source, RNDRESEEDCRNG)
    with open("/etc/machine-id", "w") as file:
        file.write(os.urandom(16).hex() + "\n")


def run(cloud_init: Callable[[list[str]], object], stage: list[str]) -> None:
    """As its unit would, with its output where theirs goes; a stage that fails is told of and the next one tried."""
    child = os.fork()
    if child == 0:
        console = os.open("/dev/console", os.O_WRONLY | os.O_NOCTTY)
        os.dup2(console, 1)
        os.dup2(console, 2)
        code: object = 1
        try:
            code = cloud_init(["cloud-init", *stage])
        except SystemExit as end:
            code = end.code
        except BaseException as error:
            print("cloud-init", *stage, "failed:", repr(error), flush=True)
        sys.stdout.flush()
        os._exit(code if isinstance(code, int) else 0)
    os.waitpid(child, 0)


if __name__ == "__main__":
    main()
