"""The machines that images are made of, as the providers' lists show them while they live."""

from __future__ import annotations

from collections.abc import Sequence

from tinyfat.ports.server_ledger import ImageMachine
from tinyfat.store.database import Database, storable


class ImageMachineStore:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def now(self, kind: str, seen: Sequence[ImageMachine]) -> None:
        async with self._database.transaction() as connection:
            await connection.execute(
                "delete from image_machines where kind = %s and provider_id <> all(%s)",
                (kind, [one.provider_id for one in seen]),
            )
            for one in seen:
                await connection.execute(
                    "insert into image_machines (kind, provider_id, name, image, since, month_price) "
                    "values (%s, %s, %s, %s, %s, %s) on conflict (kind, provider_id) do update "
                    "set name = excluded.name, image = excluded.image, since = excluded.since, "
                    "month_price = excluded.month_price",
                    (kind, one.provider_id, storable(one.name), storable(one.image), one.since,
                     one.monthly_nanodollars),
                )  # fmt: skip

    async def all(self) -> list[ImageMachine]:
        async with self._database.connection() as connection:
            cursor = await connection.execute(
                "select kind, provider_id, name, image, since, month_price from image_machines order by since, name"
            )
            return [ImageMachine(*row) for row in await cursor.fetchall()]
