"""The system calls that Landlock and namespaces leave open, closed by a filter: seccomp(2). Building it is pure.

- Unix sockets are opened by path past Landlock: D-Bus, Docker, ssh-agent and Postgres would be one connect(2) away.
- Multipath TCP and TCP Fast Open connect past Landlock's rule of ports (seen on 6.18).
- io_uring does socket calls that no filter sees.
- Keyrings, System V memory and message queues belong to the user, not to the program; and a user may set the limits of
  each of its programs, of processor time too, at the end of which a program is killed.

Numbers: arch/x86/entry/syscalls/syscall_64.tbl and include/uapi/asm-generic/unistd.h. Instructions: linux/filter.h,
linux/bpf_common.h; what they read: struct seccomp_data of linux/seccomp.h.
"""

from __future__ import annotations

import ctypes
import errno
import socket
import struct
from collections.abc import Iterable
from dataclasses import dataclass

from tinyfat.sandbox import kernel

_PR_SET_SECCOMP, _MODE_FILTER = 22, 2
_LOAD, _JUMP_EQUAL, _JUMP_GREATER_EQUAL, _JUMP_SET, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16  # offsets; an argument has 8 bytes, the low half first
_ALLOW, _ERRNO, _KILL_PROCESS = 0x7FFF0000, 0x00050000, 0x80000000
_X32 = 0x40000000  # x86-64's other ABI has the same architecture and numbers from here on
_MSG_FASTOPEN = 0x20000000
_IPPROTO_SMC, _IPPROTO_MPTCP = 256, 262


@dataclass(frozen=True, slots=True)
class Architecture:
    audit: int  # AUDIT_ARCH_*, linux/audit.h
    socket: int
    flags: tuple[tuple[int, int], ...]  # calls that send, and which argument holds their flags
    refused: tuple[int, ...]  # always
    shared: tuple[int, ...]  # System V IPC and message queues
    limits: int  # prlimit64(pid, ...); 0: oneself


ARCHITECTURES = {
    "x86_64": Architecture(
        0xC000003E,
        41,
        ((44, 3), (46, 2), (307, 3)),  # sendto sendmsg sendmmsg
        # io_uring_setup io_uring_enter io_uring_register add_key request_key keyctl bpf perf_event_open userfaultfd
        (425, 426, 427, 248, 249, 250, 321, 298, 323),
        # shmget shmat shmctl semget semop semctl msgget msgsnd msgrcv msgctl semtimedop mq_open mq_unlink
        (29, 30, 31, 64, 65, 66, 68, 69, 70, 71, 220, 240, 241),
        302,
    ),
    "aarch64": Architecture(
        0xC00000B7,
        198,
        ((206, 3), (211, 2), (269, 3)),
        (425, 426, 427, 217, 218, 219, 280, 241, 282),
        # mq_open mq_unlink msgget msgctl msgrcv msgsnd semget semctl semtimedop semop shmget shmctl shmat
        (180, 181, 186, 187, 188, 189, 190, 191, 192, 193, 194, 195, 196),
        261,
    ),
}


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_void_p))


def known(machine: str = kernel.MACHINE) -> bool:
    return machine in ARCHITECTURES


def restrict(unix_sockets: bool, room: bool) -> None:
    """For this process and all its descendants, for good. socketpair(2) stays. Raises OSError."""
    code = program(ARCHITECTURES[kernel.MACHINE], unix_sockets, room)
    held = ctypes.create_string_buffer(code, len(code))
    filled = _Program(len(code) // 8, ctypes.addressof(held))
    kernel.no_new_privileges()
    kernel.call_prctl_pointer("PR_SET_SECCOMP", _PR_SET_SECCOMP, _MODE_FILTER, ctypes.byref(filled))


def program(here: Architecture, unix_sockets: bool, room: bool) -> bytes:
    """The filter. `unix_sockets`: socket(AF_UNIX) is let through; `room`: System V IPC, message queues and other
    processes' limits are, since in namespaces of its own they are the program's own."""
    families = [socket.AF_INET, socket.AF_INET6, 16]  # 16: AF_NETLINK, by which programs list their interfaces
    families += [socket.AF_UNIX] if unix_sockets else []
    refused = (*here.refused, *(() if room else here.shared))
    code = [
        *(_load(_ARCHITECTURE), _jump(_JUMP_EQUAL, here.audit, 1, 0), _end(_KILL_PROCESS)),
        *(_load(_NUMBER), _jump(_JUMP_GREATER_EQUAL, _X32, 0, 1), _end(_ERRNO | errno.ENOSYS)),
    ]
    for number in refused:
        code += _when(_JUMP_EQUAL, number, [_end(_ERRNO | errno.ENOSYS)])
    if not room:
        code += _when(_JUMP_EQUAL, here.limits, _of_oneself())
    for number, argument in here.flags:
        code += _when(_JUMP_EQUAL, number, _sending(argument))
    code += _when(_JUMP_EQUAL, here.socket, _opening(families))
    return b"".join((*code, _end(_ALLOW)))


def _sending(argument: int) -> list[bytes]:
    refuse = [_end(_ERRNO | errno.EOPNOTSUPP)]
    return [_load(_ARGUMENTS + 8 * argument), *_when(_JUMP_SET, _MSG_FASTOPEN, refuse), _end(_ALLOW)]


def _of_oneself() -> list[bytes]:
    return [_load(_ARGUMENTS), *_when(_JUMP_EQUAL, 0, [_end(_ALLOW)]), _end(_ERRNO | errno.EPERM)]


def _opening(families: Iterable[int]) -> list[bytes]:
    """socket(family, type, protocol)."""
    refuse = [_end(_ERRNO | errno.EPROTONOSUPPORT)]
    code = [_load(_ARGUMENTS + 16)]
    for protocol in (_IPPROTO_MPTCP, _IPPROTO_SMC):
        code += _when(_JUMP_EQUAL, protocol, refuse)
    code.append(_load(_ARGUMENTS))
    for family in families:
        code += _when(_JUMP_EQUAL, family, [_end(_ALLOW)])
    return [*code, _end(_ERRNO | errno.EAFNOSUPPORT)]


def _when(comparison: int, value: int, then: list[bytes]) -> list[bytes]:
    """`then` must end by itself: the value that was compared is gone after it."""
    return [_jump(comparison, value, 0, len(then)), *then]


def _load(offset: int) -> bytes:
    return struct.pack("=HBBI", _LOAD, 0, 0, offset)


def _jump(comparison: int, value: int, if_true: int, if_false: int) -> bytes:
    return struct.pack("=HBBI", comparison, if_true, if_false, value)


def _end(action: int) -> bytes:
    return struct.pack("=HBBI", _RETURN, 0, 0, action)
