from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.box.boxes import Box
from tests.box.plane import Plane


@pytest.fixture
async def plane() -> AsyncIterator[Plane]:
    async with Plane() as plane:
        yield plane


@pytest.fixture
async def box(plane: Plane, tmp_path: Path) -> AsyncIterator[Box]:
    """A box with its folder, not yet started; nothing of it outlives the test."""
    folder = tmp_path / "box-ada"
    plane.write_box_json(folder)
    box = Box(folder)
    yield box
    if box.process is not None and box.process.returncode is None:
        await box.terminate()
    assert box.running() == []
