"""`python in_its_place.py RECORD PROGRAM...`: `process_box`, with another program in the box's place."""

from __future__ import annotations

import sys
from pathlib import Path
from unittest import mock

from tinyfat.drivers.machines import process_box

if __name__ == "__main__":
    with mock.patch.object(process_box, "box_argv", lambda record: sys.argv[2:]):
        sys.exit(process_box.main(Path(sys.argv[1])))
