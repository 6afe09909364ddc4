"""Variables that look like settings and are none: else a typing error would be a setting that silently is not made."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

PREFIX = "TINYFAT_"
# Read elsewhere than in Settings: by a stand-in's command, by boxes and their installers, by our own tests.
OTHERS = frozenset(
    PREFIX + name for name in ("STANDIN_TOKEN", "INSTALLER", "NODE_HOME", "PORTS", "SESSION", "TEST_SLOWNESS")
)
CLOSE = 0.75  # of difflib's ratio: one or two letters, a missing underscore


def unknown(variables: Iterable[str], settings: Iterable[str]) -> list[str]:
    """A sentence for each variable of the environment that begins as our settings do and is none of them, with the
    nearest that is. `settings`: their names as fields, such as `smtp_listen`."""
    known = {PREFIX + name.upper() for name in settings} | OTHERS
    sentences: list[str] = []
    for name in sorted(variables):
        if not name.startswith(PREFIX) or name in known:
            continue
        near = difflib.get_close_matches(name, known, 1, CLOSE)
        meant = f"did you mean {near[0]}?" if near else "docs/settings.md lists all there are."
        sentences.append(f"{name} is no setting, and nothing comes of it: {meant}")
    return sentences
