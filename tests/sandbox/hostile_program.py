"""What a hostile owner tries from a shell in the box: run in its sandbox, with nothing but the standard library.

    python hostile_program.py TARGETS RESULTS

TARGETS: JSON, what is there to reach. RESULTS: JSON, per attempt true where it came off, else why not.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import json
import os
import resource
import shutil
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

ATTEMPTS: list[Callable[[], object]] = []
AT = json.loads(Path(sys.argv[1]).read_text())
PID = AT["pid"]
OWN = Path(AT["own"])
LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.syscall.restype = ctypes.c_long
LIBC.shmat.restype = ctypes.c_void_p
ARM = os.uname().machine == "aarch64"


def _open_now() -> dict[int, str]:
    """But for the usual three, the wire to who installs, and what lists them."""
    usual = {0, 1, 2, int(os.environ.get("TINYFAT_INSTALLER", -1))}
    found = {}
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
    return {name: path for name, path in found.items() if name not in usual}


INHERITED = _open_now()


def attempt(function: Callable[[], object]) -> Callable[[], object]:
    ATTEMPTS.append(function)
    return function


def call(*arguments: object) -> int:
    done = int(LIBC.syscall(*arguments))
    if done < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return done


def replacing(path: str, content: bytes) -> bool:
    Path(path).write_bytes(content)
    return True


@attempt
def read_the_key() -> object:
    return Path(AT["secret"]).read_bytes()


@attempt
def read_the_operators_home() -> object:
    return Path(AT["private"]).read_bytes()


@attempt
def read_another_box() -> object:
    return Path(AT["other"]).read_bytes()


@attempt
def read_the_record_of_this_box() -> object:
    return Path(AT["record"]).read_bytes()


@attempt
def list_the_home() -> object:
    return AT["secret_name"] in os.listdir(Path(AT["secret"]).parent)


@attempt
def read_the_password_file() -> object:
    return Path("/etc/shadow").read_bytes()


@attempt
def read_by_a_symbolic_link() -> object:
    (OWN / "link").symlink_to(AT["secret"])
    return (OWN / "link").read_bytes()


@attempt
def read_by_a_hard_link() -> object:
    os.link(AT["secret"], OWN / "hard")
    return (OWN / "hard").read_bytes()


@attempt
def read_by_dots() -> object:
    return Path(f"{OWN}/../../{AT['secret_name']}").read_bytes()


@attempt
def read_by_its_parents_root() -> object:
    return Path(f"/proc/{os.getppid()}/root{AT['secret']}").read_bytes()


@attempt
def read_by_the_planes_root() -> object:
    return Path(f"/proc/{PID}/root{AT['secret']}").read_bytes()


@attempt
def read_by_a_new_user_namespace() -> object:
    pid = os.fork()
    if not pid:
        done = (
            LIBC.unshare(0x10000000 | 0x00020000) == 0 and LIBC.mount(b"none", b"/", None, 16384 | 1 << 18, None) == 0
        )
        os._exit(0 if done else 1)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


@attempt
def move_a_secret_in() -> object:
    os.rename(AT["movable"], OWN / "moved")
    return True


@attempt
def write_outside() -> object:
    return replacing(AT["writable"], b"written by a box")


@attempt
def append_outside() -> object:
    with open(AT["writable"], "ab") as file:
        return file.write(b"more")


@attempt
def empty_outside() -> object:
    os.truncate(AT["writable"], 0)
    return True


@attempt
def make_a_file_outside() -> object:
    return replacing(AT["private"] + ".new", b"new")


@attempt
def remove_outside() -> object:
    os.unlink(AT["writable"])
    return True


@attempt
def change_a_mode_outside() -> object:
    os.chmod(AT["chmod"], 0o777)
    return True


@attempt
def write_what_all_boxes_share() -> object:
    return replacing(AT["shared"] + "/poison.js", b"")


@attempt
def write_what_the_plane_runs() -> object:
    return replacing(AT["package"] + "/poison.py", b"")


@attempt
def write_a_switch_of_the_kernel() -> object:
    return replacing("/proc/sys/kernel/core_pattern", b"|/bin/false")


@attempt
def read_the_planes_environment() -> object:
    return Path(f"/proc/{PID}/environ").read_bytes()


@attempt
def read_the_planes_memory() -> object:
    with open(f"/proc/{PID}/mem", "rb") as file:
        return file.seek(int(AT["address"]) or 4096) and file.read(8)


@attempt
def read_the_planes_arguments() -> object:
    return b"plane" in Path(f"/proc/{PID}/cmdline").read_bytes()


@attempt
def see_the_planes_files() -> object:
    return os.readlink(f"/proc/{PID}/fd/0")


@attempt
def signal_the_plane() -> object:
    os.kill(PID, signal.SIGCONT)
    return b"plane" in Path(f"/proc/{PID}/cmdline").read_bytes()  # in a room, another has its number


@attempt
def limit_the_plane() -> object:
    resource.prlimit(PID, resource.RLIMIT_CORE, (0, 0))  # as well could it be that of processor time
    return b"plane" in Path(f"/proc/{PID}/cmdline").read_bytes()


@attempt
def trace_the_plane() -> object:
    call(117 if ARM else 101, 16, PID, 0, 0)  # PTRACE_ATTACH
    return True


@attempt
def read_the_planes_memory_by_a_call() -> object:
    room = ctypes.create_string_buffer(8)
    here = (ctypes.c_void_p * 2)(ctypes.addressof(room), 8)
    there = (ctypes.c_void_p * 2)(int(AT["address"]), 8)
    return call(270 if ARM else 310, PID, here, 1, there, 1, 0)  # process_vm_readv


@attempt
def take_the_planes_file() -> object:
    fd = os.pidfd_open(PID)
    return call(438, fd, 0, 0) >= 0  # pidfd_getfd


def stream(path: str) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(path)
        return client.recv(5) == b"hello"


@attempt
def connect_to_a_socket_by_path() -> object:
    return stream(AT["socket"])


@attempt
def connect_to_a_socket_by_name() -> object:
    return stream("\0" + AT["abstract"])


def tcp(port: int, protocol: int = 0) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, protocol) as client:
        client.connect(("127.0.0.1", port))
        return client.recv(5) == b"hello"


@attempt
def connect_to_a_closed_port() -> object:
    return tcp(AT["closed"])


@attempt
def connect_to_a_closed_port_by_ipv6() -> object:
    with socket.socket(socket.AF_INET6) as client:
        client.connect(("::ffff:127.0.0.1", AT["closed"]))
        return client.recv(5) == b"hello"


@attempt
def connect_by_multipath() -> object:
    return tcp(AT["closed"], 262)


@attempt
def connect_by_smc() -> object:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, 256):
        return True


@attempt
def connect_by_fast_open() -> object:
    with socket.socket() as client:
        client.sendto(b"x", 0x20000000, ("127.0.0.1", AT["closed"]))
        return client.recv(5) == b"hello"


@attempt
def connect_by_fast_open_of_a_message() -> object:
    with socket.socket() as client:
        client.sendmsg([b"x"], [], 0x20000000, ("127.0.0.1", AT["closed"]))
        return client.recv(5) == b"hello"


@attempt
def connect_by_fast_open_later() -> object:
    with socket.socket() as client:
        client.setsockopt(socket.IPPROTO_TCP, 30, 1)  # TCP_FASTOPEN_CONNECT
        client.connect(("127.0.0.1", AT["closed"]))
        client.send(b"x")
        return client.recv(5) == b"hello"


@attempt
def listen_on_a_closed_port() -> object:
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        server.bind(("127.0.0.2", AT["unbindable"]))
        server.listen()
        return True


@attempt
def listen_where_another_box_will() -> object:
    with socket.socket() as server:
        server.bind(("127.0.0.1", AT["others_port"]))
        return True


@attempt
def set_up_a_ring() -> object:
    return call(425, 8, ctypes.create_string_buffer(120)) >= 0


@attempt
def open_a_virtual_machines_socket() -> object:
    with socket.socket(40, socket.SOCK_STREAM):
        return True


@attempt
def use_the_operators_keyring() -> object:
    return call(219 if ARM else 250, 0, -3, 0) >= 0  # keyctl: KEYCTL_GET_KEYRING_ID of the session


@attempt
def attach_the_operators_memory() -> object:
    found = LIBC.shmat(AT["memory"], None, 0o10000)  # SHM_RDONLY
    return found not in (None, ctypes.c_void_p(-1).value) and ctypes.string_at(found, 5) == b"hello"


@attempt
def have_an_inherited_file() -> object:
    return any(not path.startswith("/proc/") for path in INHERITED.values())


@attempt
def have_a_secret_in_the_environment() -> object:
    return any("secret" in f"{name}={value}" for name, value in os.environ.items())


@attempt
def have_privileges() -> object:
    status = Path("/proc/self/status").read_text()
    return "CapEff:\t0000000000000000" not in status or "NoNewPrivs:\t1" not in status or "Seccomp:\t2" not in status


@attempt
def have_a_terminal() -> object:
    with open("/dev/tty", "rb"):
        return True


# What it may.


@attempt
def may_write_its_own_folder() -> object:
    (OWN / "sub").mkdir()
    (OWN / "sub" / "a").write_text("a")
    (OWN / "sub" / "a").rename(OWN / "b")
    os.link(OWN / "b", OWN / "c")
    os.truncate(OWN / "c", 0)
    (OWN / "tool").write_text("#!/bin/sh\necho ran")
    (OWN / "tool").chmod(0o700)
    shutil.rmtree(OWN / "sub")
    return subprocess.run([str(OWN / "tool")], capture_output=True, text=True, check=True).stdout == "ran\n"


@attempt
def may_write_its_temporary_folder() -> object:
    return replacing(os.environ["TMPDIR"] + "/x", b"x")


@attempt
def may_write_tmp() -> object:
    return replacing("/tmp/x", b"x")


@attempt
def may_run_programs() -> object:
    done = subprocess.run(["sh", "-c", "ls / >/dev/null 2>&1; cat /etc/hosts | wc -c"], capture_output=True, check=True)
    return int(done.stdout) > 0


@attempt
def may_import_what_it_runs_with() -> object:
    done = subprocess.run([sys.executable, "-P", "-c", "import tinyfat.box.supervisor, ssl, sqlite3"], check=True)
    return done.returncode == 0


@attempt
def may_connect_elsewhere() -> object:
    return tcp(AT["open"])


@attempt
def may_listen_for_itself() -> object:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        with socket.create_connection(server.getsockname()) as client:
            return client.fileno() >= 0


@attempt
def may_listen_where_no_other_box_may() -> object:
    with socket.socket() as server:
        try:
            server.bind(("127.0.0.1", int(os.environ["TINYFAT_PORTS"].split("-")[0])))
        except OSError as error:
            return error.errno == errno.EADDRINUSE  # another home's agent is there: we were let as far as that
        return True


@attempt
def may_use_pairs_and_interfaces() -> object:
    one, two = socket.socketpair()
    one.send(b"x")
    return two.recv(1) == b"x" and bool(socket.if_nameindex())


@attempt
def may_signal_and_trace_its_own() -> object:
    # It waits without becoming another program: in the midst of that, its environment is empty for a moment.
    waits = ["sh", "-c", "echo up; read line"]
    with subprocess.Popen(waits, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        environ = Path(f"/proc/{child.pid}/environ").read_bytes()
        child.terminate()
        return child.wait() == -signal.SIGTERM and bool(environ)


@attempt
def may_use_sockets_of_its_own() -> object:
    path = os.path.relpath(OWN / "s", os.getcwd())
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen()
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(path)
            return True


@attempt
def may_open_a_terminal_of_its_own() -> object:
    _, theirs = os.openpty()
    return fcntl.ioctl(theirs, 0x5413, struct.pack("HHHH", 0, 0, 0, 0)) is not None  # TIOCGWINSZ


def main() -> None:
    results: dict[str, object] = {}
    for one in ATTEMPTS:
        try:
            results[one.__name__] = bool(one()) or "no"
        except (OSError, subprocess.SubprocessError, ValueError) as error:
            results[one.__name__] = f"{type(error).__name__}: {error}"
    Path(sys.argv[2]).write_text(json.dumps(results, indent=1))


main()
