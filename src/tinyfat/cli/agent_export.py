"""An agent's state becomes a file of the operator's: whole, private, and not in the place of another."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from tinyfat.cli.client import Client, CommandFailed, WrongUse

LOOK_SECONDS = 0.2
EXPORT_SECONDS_MAX = 35 * 60.0  # a little longer than the control plane waits for the box


def export_state(client: Client, name: str, file: Path) -> dict[str, Any]:
    """The export as it was fetched; `file` (0600) has it. Raises CommandFailed: then `file` is not there."""
    draft = file.with_name(file.name + ".part")
    try:
        if file.exists():
            raise WrongUse(f"{file} is there already; choose another name.")
        os.close(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600))
        draft.chmod(0o600)
    except OSError as error:
        raise WrongUse(f"{file} cannot be written: {error.strerror}.") from None
    try:
        export = client.post("agents", name, "exports")
        try:
            export = _kept(client, name, export)
            client.download(draft, export["sha256"], "agents", name, "exports", export["id"], "file")
            os.link(draft, file)  # fails where another file came meanwhile
        finally:
            client.delete("agents", name, "exports", export["id"])
    except OSError as error:
        raise CommandFailed(f"{file} cannot be written: {error.strerror}.") from None
    finally:
        draft.unlink(missing_ok=True)
    return {"file": str(file), "bytes": export["bytes"], "sha256": export["sha256"]}


def _kept(client: Client, name: str, export: dict[str, Any]) -> dict[str, Any]:
    """Once it is here. Raises CommandFailed with the reason where it does not come."""
    deadline = time.monotonic() + EXPORT_SECONDS_MAX
    while export["phase"] == "asked" and time.monotonic() < deadline:
        time.sleep(LOOK_SECONDS)
        export = client.get("agents", name, "exports", export["id"])
    if export["phase"] != "kept":
        why = export["detail"] or f"it did not come within {EXPORT_SECONDS_MAX / 60:.0f} min"
        raise CommandFailed(f"The state of {name} could not be exported: {why}.")
    return export
