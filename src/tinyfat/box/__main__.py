"""`python -m tinyfat.box --folder FOLDER`: the box of one machine.

Exit codes: 0 stopped (asked to, no longer wanted, or its folder is gone); 1 a mistake of ours, start it again;
2 wrong use or a folder that is no box's; 3 another box runs in this folder.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from pathlib import Path

from tinyfat.box.child import adoption
from tinyfat.box.folder import BoxFolder, FolderRefused, FolderTaken, Identity
from tinyfat.box.supervisor import Supervisor

EXIT_WRONG_USE = 2
EXIT_FOLDER_TAKEN = 3


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="tinyfat box", description="Runs an agent's runtime on its machine.")
    parser.add_argument("--folder", type=Path, required=True, help="the box's own folder, with its box.json")
    folder = BoxFolder(parser.parse_args(argv).folder)
    try:
        identity = folder.identity()
        folder.lock()
    except FolderRefused as error:
        print(error, file=sys.stderr)
        return EXIT_WRONG_USE
    except FolderTaken as error:
        print(error, file=sys.stderr)
        return EXIT_FOLDER_TAKEN
    asyncio.run(_run(folder, identity))
    return 0


async def _run(folder: BoxFolder, identity: Identity) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    adoption.begin()
    await Supervisor(folder, identity).run(stop)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
