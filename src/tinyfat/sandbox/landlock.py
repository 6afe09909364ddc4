"""Landlock: a process gives up files and TCP ports, for itself and all its descendants, for good. No privilege needed.

Constants: include/uapi/linux/landlock.h; which ABI has what: Documentation/userspace-api/landlock.rst.
"""

from __future__ import annotations

import ctypes
import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tinyfat.sandbox import kernel

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_VERSION = 1  # LANDLOCK_CREATE_RULESET_VERSION
_PATH_BENEATH, _NET_PORT = 1, 2

EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_FILES_OF_1 = (1 << 13) - 1  # up to MAKE_SYM
REFER, TRUNCATE, IOCTL_DEV = 1 << 13, 1 << 14, 1 << 15  # since ABI 2, 3, 5
BIND_TCP, CONNECT_TCP = 1 << 0, 1 << 1  # since ABI 4
_ABSTRACT_UNIX_SOCKETS, _SIGNALS = 1 << 0, 1 << 1  # since ABI 6
EVERYTHING = (1 << 16) - 1
READ = EXECUTE | READ_FILE | READ_DIR
_OF_A_FILE = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV
PORTS = range(65536)

ABI_REFER, ABI_TRUNCATE, ABI_TCP, ABI_SCOPES = 2, 3, 4, 6


@dataclass(frozen=True, slots=True)
class Ports:
    """TCP ports of this host that a program may not have; all others it may."""

    no_connect: frozenset[int] = frozenset()
    no_bind: frozenset[int] = frozenset()  # who binds a server's port while it is away hears its clients' secrets


class _Ruleset(ctypes.Structure):
    _fields_ = (("files", ctypes.c_uint64), ("net", ctypes.c_uint64), ("scoped", ctypes.c_uint64))


class _PathRule(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("allowed", ctypes.c_uint64), ("parent", ctypes.c_int32))


class _PortRule(ctypes.Structure):
    _fields_ = (("allowed", ctypes.c_uint64), ("port", ctypes.c_uint64))


def abi() -> int:
    """What the kernel has; 0: no Landlock, or it is switched off, or the first, under which nothing can be moved from
    one folder to another."""
    try:
        found = kernel.call("landlock", _CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint32(_VERSION))
    except OSError:
        return 0
    return found if found >= ABI_REFER else 0


def files_of(version: int) -> int:
    """Every right to files that this ABI can take away."""
    rights = _FILES_OF_1
    for since, right in ((ABI_REFER, REFER), (ABI_TRUNCATE, TRUNCATE), (5, IOCTL_DEV)):
        rights |= right if version >= since else 0
    return rights


def restrict(version: int, rights: Iterable[tuple[Path, int]], ports: Ports) -> None:
    """This process and its descendants keep these rights to what lies at or below each path, and to all TCP ports but
    `ports`. What is not there grants nothing, and what this ABI does not know is not taken away. Raises OSError."""
    files = files_of(version)
    net = BIND_TCP | CONNECT_TCP if version >= ABI_TCP else 0
    scoped = _ABSTRACT_UNIX_SOCKETS | _SIGNALS if version >= ABI_SCOPES else 0
    size = 24 if version >= ABI_SCOPES else 16 if version >= ABI_TCP else 8  # an older kernel knows no later fields
    ruleset = _Ruleset(files, net, scoped)
    fd = kernel.call(
        "landlock_create_ruleset", _CREATE_RULESET, ctypes.byref(ruleset), ctypes.c_size_t(size), ctypes.c_uint32(0)
    )
    try:
        for path, kept in rights:
            _grant(fd, path, kept & files)
        if net:
            _grant_ports(fd, ports)
        kernel.no_new_privileges()
        kernel.call("landlock_restrict_self", _RESTRICT_SELF, ctypes.c_int(fd), ctypes.c_uint32(0))
    finally:
        os.close(fd)


def _grant(ruleset: int, path: Path, rights: int) -> None:
    try:
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        if not stat.S_ISDIR(os.fstat(fd).st_mode):
            rights &= _OF_A_FILE
        rule = _PathRule(rights, fd)
        kernel.call(f"landlock_add_rule {path}", _ADD_RULE, *_rule(ruleset, _PATH_BENEATH, rule))
    finally:
        os.close(fd)


def _grant_ports(ruleset: int, ports: Ports) -> None:
    """One by one: Landlock knows neither ranges nor refusals. All of them take a tenth of a second and 4 MB."""
    rule = _PortRule()
    arguments = _rule(ruleset, _NET_PORT, rule)
    for port in PORTS:
        rule.allowed = (0 if port in ports.no_bind else BIND_TCP) | (0 if port in ports.no_connect else CONNECT_TCP)
        if rule.allowed:
            rule.port = port
            kernel.call("landlock_add_rule", _ADD_RULE, *arguments)


def _rule(ruleset: int, kind: int, rule: ctypes.Structure) -> tuple[object, ...]:
    return ctypes.c_int(ruleset), ctypes.c_int(kind), ctypes.byref(rule), ctypes.c_uint32(0)
