"""The base image for tests: built once for this user's cache, then shared as links by every test's own folder."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from tinyfat.domain.enrolment import BOX_USER, STATE_FOLDER
from tinyfat.machine_hosts.images import ImageFolder
from tinyfat.machine_hosts.rootfs import BaseRecipe, build_base
from tinyfat.settings import Settings

RECIPE = BaseRecipe((BOX_USER,), STATE_FOLDER)


def cached_images() -> ImageFolder:
    return ImageFolder(Settings().cache / "images" / "nspawn")


async def base_image(images: ImageFolder) -> str:
    """Its name, in `images`."""
    built = await build_base(cached_images(), RECIPE, lambda: datetime.now(UTC), Path("/tmp/tinyfat-base.log"))
    images.folder.mkdir(parents=True, exist_ok=True)
    (images.folder / built.name).symlink_to(built.folder)
    return built.name
