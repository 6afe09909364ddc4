"""`python -m tinyfat.sandbox.trial MEANS`: exit code 0 where a program runs in this sandbox, here and now."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

from tinyfat.sandbox import grants
from tinyfat.sandbox.enter import Program, start, wait
from tinyfat.sandbox.landlock import Ports
from tinyfat.sandbox.means import Means


def main(means: Means) -> int:
    with tempfile.TemporaryDirectory(prefix="tinyfat-trial-") as name:
        own, root = Path(name) / "own", Path(name) / "root"
        own.mkdir()
        root.mkdir()
        program = Program(("/bin/sh", "-c", "echo > here && test -r here"), {}, own)
        return wait(start(program, grants.Grants(own, grants.system()), Ports(), means, root))


if __name__ == "__main__":
    sys.exit(main(Means(**json.loads(sys.argv[1]))))
