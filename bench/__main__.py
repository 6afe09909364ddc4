"""`python -m bench [PROGRAM ...] [--seconds S] [--json]`: a small table, ratios first. Exit code 1: a goal is missed.

PROGRAM: accept, turns, idle, relay, caps, many-servers, servers.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import uvloop

from bench import accept, caps, idle, many_servers, postfix, relay, servers, turns
from bench.figures import Figure, as_json, table

PROGRAMS = ("accept", "turns", "idle", "relay", "caps", "many-servers", "servers")
BY_DEFAULT = PROGRAMS[:-1]  # servers need root, Debian and a quarter of an hour
SECONDS = 30.0
# Open to pass through, to nobody to look into: Postfix's processes run as users of their own.
FOLDER_MODE = 0o711


async def run(programs: list[str], seconds: float, folder: Path) -> list[Figure]:
    figures: list[Figure] = []
    why_not = await postfix.missing() if {"accept", "turns"} & set(programs) else ""
    if why_not:
        print(f"no ratios: {why_not}", file=sys.stderr)
    if "idle" in programs:
        figures += await idle.measure(folder, seconds)
    if "accept" in programs:
        figures += await accept.measure(folder, seconds, with_peer=not why_not)
    if "turns" in programs:
        figures += await turns.measure(folder, seconds, with_peer=not why_not)
    if "relay" in programs:
        figures += await relay.measure(folder, seconds)
    if "caps" in programs:
        figures += await caps.measure()
    if "many-servers" in programs:
        figures += await many_servers.measure(folder)
    if "servers" in programs:
        if why := servers.missing():
            print(f"no servers: {why}", file=sys.stderr)
        else:
            figures += await servers.measure(folder)
    return figures


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("programs", nargs="*", metavar="|".join(PROGRAMS), help="default: all but servers")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of each measurement (default: %(default)g)")
    parser.add_argument("--json", action="store_true", help="the figures as JSON instead of a table")
    options = parser.parse_args()
    if unknown := set(options.programs) - set(PROGRAMS):
        parser.error(f"there is no benchmark {', '.join(sorted(unknown))}; there are: {', '.join(PROGRAMS)}")
    with tempfile.TemporaryDirectory(prefix="tinyfat-bench-") as name:
        folder = Path(name)
        folder.chmod(FOLDER_MODE)
        figures = uvloop.run(run(options.programs or list(BY_DEFAULT), options.seconds, folder))
    print(as_json(figures) if options.json else table(figures))
    return 1 if any(figure.met is False for figure in figures) else 0


if __name__ == "__main__":
    sys.exit(main())
