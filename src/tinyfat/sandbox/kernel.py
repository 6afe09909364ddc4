"""System calls that Python has no name for. Each raises OSError with the call's name.

Numbers are the kernel's own: include/uapi/asm-generic/unistd.h for calls since 424, which are the same everywhere;
linux/prctl.h, linux/sched.h, linux/mount.h, linux/capability.h.
"""

from __future__ import annotations

import ctypes
import os
import platform
import signal
from pathlib import Path

_MOUNT_SETATTR = 442
_CLONE = {"x86_64": 56, "aarch64": 220}
_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
_CAPSET = {"x86_64": 126, "aarch64": 91}

CLONE_NEWNS = 0x00020000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC = 1, 2, 4, 8
MS_BIND, MS_REC, MS_PRIVATE = 4096, 16384, 1 << 18
MOUNT_ATTR_RDONLY, MOUNT_ATTR_NOSUID, MOUNT_ATTR_NODEV, MOUNT_ATTR_NOEXEC = 1, 2, 4, 8
_AT_FDCWD = -100
_AT_RECURSIVE = 0x8000
_MNT_DETACH = 2

_PR_SET_PDEATHSIG = 1
_PR_CAPBSET_DROP = 24
_PR_SET_CHILD_SUBREAPER = 36
_PR_SET_NO_NEW_PRIVS = 38
_CAPABILITY_VERSION_3 = 0x20080522
_CAPABILITIES_MAX = 64

# It keeps the interpreter's lock during a call, which a clone needs: its child has no other thread to give it back.
_libc = ctypes.PyDLL(None, use_errno=True)
MACHINE = platform.machine()


def call(name: str, number: int, *arguments: object) -> int:
    """One system call by its number."""
    _libc.syscall.restype = ctypes.c_long
    return _checked(name, _libc.syscall(ctypes.c_long(number), *arguments))


def prctl(name: str, option: int, value: int = 0) -> None:
    _checked(name, _libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0))


def call_prctl_pointer(name: str, option: int, value: int, pointer: object) -> None:
    _checked(name, _libc.prctl(option, ctypes.c_ulong(value), pointer, 0, 0))


def clone(flags: int) -> int:
    """fork(2) into new namespaces: 0 in the child. Only for a process of one thread."""
    number = _CLONE.get(MACHINE)
    if number is None:
        raise OSError(f"clone: its number on {MACHINE} is not known")
    zero = ctypes.c_ulong(0)
    return call("clone", number, ctypes.c_ulong(flags | signal.SIGCHLD), zero, zero, zero, zero)


def mount(source: str, target: Path, kind: str = "", flags: int = 0, options: str = "") -> None:
    done = _libc.mount(
        source.encode(), os.fsencode(target), kind.encode() or None, ctypes.c_ulong(flags), options.encode() or None
    )
    _checked(f"mount {target}", done)


class _MountAttributes(ctypes.Structure):
    _fields_ = (
        ("attr_set", ctypes.c_uint64),
        ("attr_clr", ctypes.c_uint64),
        ("propagation", ctypes.c_uint64),
        ("userns_fd", ctypes.c_uint64),
    )


def mount_attributes(target: Path, wanted: int, recursive: bool = True) -> None:
    """mount_setattr(2): of all that is mounted below, too."""
    attributes = _MountAttributes(wanted)
    call(
        f"mount_setattr {target}",
        _MOUNT_SETATTR,
        ctypes.c_int(_AT_FDCWD),
        ctypes.c_char_p(os.fsencode(target)),
        ctypes.c_uint(_AT_RECURSIVE if recursive else 0),
        ctypes.byref(attributes),
        ctypes.c_size_t(ctypes.sizeof(attributes)),
    )


def become_root_of(root: Path) -> None:
    """pivot_root(2), its "." form: the old root lies over the new one for a moment, and is taken off."""
    os.chdir(root)
    call("pivot_root", _PIVOT_ROOT[MACHINE], ctypes.c_char_p(b"."), ctypes.c_char_p(b"."))
    _checked("umount of the old root", _libc.umount2(b".", _MNT_DETACH))
    os.chdir("/")


def die_with_parent() -> None:
    """SIGKILL when the parent ends. The caller looks afterwards whether it had ended already."""
    prctl("PR_SET_PDEATHSIG", _PR_SET_PDEATHSIG, signal.SIGKILL)


def adopt_orphans() -> None:
    prctl("PR_SET_CHILD_SUBREAPER", _PR_SET_CHILD_SUBREAPER, 1)


def no_new_privileges() -> None:
    """No set-user-ID program gives any, from now on, to any descendant. Landlock and seccomp ask for it."""
    prctl("PR_SET_NO_NEW_PRIVS", _PR_SET_NO_NEW_PRIVS, 1)


def drop_capabilities() -> None:
    """All, the bounding set first: that takes one. Without any to begin with, the bounding set is of no use."""
    for number in range(_CAPABILITIES_MAX):
        try:
            prctl("PR_CAPBSET_DROP", _PR_CAPBSET_DROP, number)
        except OSError:
            break  # past the last one, or not allowed: then there are none that could be kept
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    none = (ctypes.c_uint32 * 6)()
    _checked("capset", _libc.capset(header, none))


def _checked(name: str, result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
    return int(result)
