"""The filter, run by a small interpreter of its own: for every processor we know, whatever this one is."""

from __future__ import annotations

import errno
import socket
import struct

import pytest

from tinyfat.sandbox.seccomp import ARCHITECTURES, Architecture, program

ALLOW, KILL = 0x7FFF0000, 0x80000000
TCP, UDP = socket.SOCK_STREAM, socket.SOCK_DGRAM
FAST_OPEN, NO_SIGNAL = 0x20000000, 0x4000


def refused(number: int) -> int:
    return 0x00050000 | number


def judged(code: bytes, audit: int, number: int, *arguments: int) -> int:
    """Classic BPF, the part of it that the filter uses (linux/filter.h)."""
    data = struct.pack("=IIQ6Q", number, audit, 0, *arguments, *[0] * (6 - len(arguments)))
    held, at = 0, 0
    while True:
        kind, if_true, if_false, value = struct.unpack_from("=HBBI", code, 8 * at)
        at += 1
        if kind == 0x06:
            return int(value)
        if kind == 0x20:
            (held,) = struct.unpack_from("=I", data, value)
            continue
        holds = {0x15: held == value, 0x35: held >= value, 0x45: bool(held & value)}[kind]
        at += if_true if holds else if_false


@pytest.fixture(params=sorted(ARCHITECTURES))
def here(request: pytest.FixtureRequest) -> Architecture:
    return ARCHITECTURES[request.param]


@pytest.mark.parametrize("unix_sockets", [True, False])
def test_which_sockets_are_opened(here: Architecture, unix_sockets: bool) -> None:
    code = program(here, unix_sockets, room=True)
    opened = {
        (family, protocol): judged(code, here.audit, here.socket, family, TCP | 0o2000000, protocol)
        for family in range(64)
        for protocol in (0, 6, 132, 256, 262)
    }
    families = {socket.AF_INET, socket.AF_INET6, 16} | ({socket.AF_UNIX} if unix_sockets else set())
    for (family, protocol), verdict in opened.items():
        if protocol in (256, 262):
            assert verdict == refused(errno.EPROTONOSUPPORT)
        else:
            assert verdict == (ALLOW if family in families else refused(errno.EAFNOSUPPORT)), (family, protocol)
    assert judged(code, here.audit, here.socket, 1 << 32 | socket.AF_INET, UDP, 0) == ALLOW  # an int is its low half


def test_what_sends_opens_no_connection(here: Architecture) -> None:
    code = program(here, True, True)
    for number, argument in here.flags:
        before = [FAST_OPEN] * argument  # elsewhere it is no flag
        assert judged(code, here.audit, number, *before, NO_SIGNAL) == ALLOW
        assert judged(code, here.audit, number, *before, NO_SIGNAL | FAST_OPEN) == refused(errno.EOPNOTSUPP)


def test_what_is_refused_and_what_is_not(here: Architecture) -> None:
    alone, own = program(here, False, room=False), program(here, True, room=True)
    sending = {number for number, _ in here.flags}
    for number in range(600):
        wanted = ALLOW
        if number in here.refused:
            wanted = refused(errno.ENOSYS)
        elif number in (here.socket, here.limits) or number in sending:
            continue
        assert judged(own, here.audit, number) == wanted
        in_both = number in here.refused or number in here.shared
        assert judged(alone, here.audit, number) == (refused(errno.ENOSYS) if in_both else ALLOW)


def test_another_processs_limits_are_its_own_outside_of_a_room(here: Architecture) -> None:
    for pid in (0, 1, 4711, 2**32 - 1):
        assert judged(program(here, True, room=True), here.audit, here.limits, pid) == ALLOW
        alone = judged(program(here, True, room=False), here.audit, here.limits, pid)
        assert alone == (refused(errno.EPERM) if pid else ALLOW)


def test_calls_of_another_kind_are_no_way_around(here: Architecture) -> None:
    code = program(here, True, True)
    for other in (0x40000003, 0x40000028, 0xC000003E, 0xC00000B7):  # 386, ARM, x86-64, AArch64
        assert judged(code, other, here.socket, socket.AF_INET) == (ALLOW if other == here.audit else KILL)
    assert judged(code, here.audit, 0x40000000 | here.socket, socket.AF_INET) == refused(errno.ENOSYS)


def test_every_jump_stays_within_the_filter(here: Architecture) -> None:
    code = program(here, True, False)
    length = len(code) // 8
    assert length < 4096  # BPF_MAXINSNS
    for at in range(length):
        kind, if_true, if_false, _ = struct.unpack_from("=HBBI", code, 8 * at)
        assert kind == 0x06 or at + 1 + max(if_true, if_false) < length
