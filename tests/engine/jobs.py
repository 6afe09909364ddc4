"""What the tests have workers do."""

from __future__ import annotations

import os
import signal


class Odd(Exception):
    """Its constructor wants more than its words: pickle cannot make it anew."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__(first)


def doubled(text: str) -> str:
    return text * 2


def length(raw: bytes) -> int:
    return len(raw)


def pid() -> int:
    return os.getpid()


def surroundings() -> tuple[list[str], str | None]:
    import sys

    return sorted(os.environ), getattr(sys.modules["__main__"], "__file__", None)


def endless() -> None:
    while True:
        pass


def dies() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def leaves() -> None:
    os._exit(3)


def eats(size: int) -> int:
    return len(bytearray(size))


def raises() -> None:
    raise KeyError("as it is")


def raises_oddly() -> None:
    raise Odd("one", "two")


def many(size: int) -> bytes:
    return bytes(size)


def prints(text: str) -> str:
    print(text, flush=True)
    os.write(1, text.encode())
    return text


def waits_for(path: str) -> int:
    """Until the file is there. Its own process id."""
    import time

    with open(path + ".began." + str(os.getpid()), "w"):
        pass
    while not os.path.exists(path):
        time.sleep(0.005)
    return os.getpid()
