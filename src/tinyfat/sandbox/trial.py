"""`python -m tinyfat.sandbox.trial MEANS`: exit code 0 where a program runs in this sandbox, here and now;
EXIT_NO_SANDBOX where the kernel refuses it; any other says nothing about the kernel.
"""

from __future__ import annotations

import errno
import json
import sys
import tempfile
from pathlib import Path

from tinyfat.sandbox import grants
from tinyfat.sandbox.enter import Program, start, wait
from tinyfat.sandbox.landlock import Ports
from tinyfat.sandbox.means import EXIT_NO_SANDBOX, Means

# clone(2): not allowed, not built in, or as many as there may be: none.
REFUSALS = (errno.EPERM, errno.EACCES, errno.EINVAL, errno.ENOSYS, errno.ENOSPC, errno.EUSERS, None)


def main(means: Means) -> int:
    with tempfile.TemporaryDirectory(prefix="tinyfat-trial-") as name:
        own, root = Path(name) / "own", Path(name) / "root"
        own.mkdir()
        root.mkdir()
        program = Program(("/bin/sh", "-c", "echo > here && test -r here"), {}, own)
        try:
            return wait(start(program, grants.Grants(own, grants.system()), Ports(), means, root))
        except OSError as error:
            if error.errno not in REFUSALS:
                raise
            return EXIT_NO_SANDBOX


if __name__ == "__main__":
    sys.exit(main(Means(**json.loads(sys.argv[1]))))
