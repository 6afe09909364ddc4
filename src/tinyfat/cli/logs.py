"""Where the log goes."""

from __future__ import annotations

import logging
import sys


def set_up_log(level: str) -> None:
    logging.basicConfig(level=level, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr)
