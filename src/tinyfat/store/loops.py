"""Mail that was held for having the rhythm of a loop, of which its agent's owner was not told yet."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from tinyfat.store.database import Database


@dataclass(frozen=True, slots=True)
class LoopHeld:
    message_id: str  # the row's id: what is released
    agent_id: str
    sender: str
    at: datetime
    occasion: str  # of its owner's notice: one a sender and week


# The notice's Message-ID is known beforehand (flows/owner_mail): where it is in the ledger, the owner was told. A slow
# loop is held for days: once a week is enough.
_UNTOLD = """
with held as (
    select id, agent_id, sender, at, stem, stem || to_char(at at time zone 'UTC', 'YYYYMMDD') as occasion
    from messages, lateral (
        select 'loop-' || left(encode(sha256(convert_to(sender, 'UTF8')), 'hex'), 16) || '-' as stem
    ) named
    where state = 'held' and reason like 'a loop:%%' and at > now() - interval '1 day'
)
select distinct on (held.agent_id, stem) held.id::text, held.agent_id::text, held.sender, held.at, occasion
from held join agents on agents.id = held.agent_id and agents.state <> 'destroyed'
where not exists (select from messages notice where notice.agent_id = held.agent_id and notice.direction = 'out'
    and notice.message_id like '<' || stem || '%%.' || held.agent_id || '@' || %(domain)s || '>'
    and notice.at > now() - interval '7 days')
order by held.agent_id, stem, held.at limit %(limit)s
"""


class LoopStore:
    def __init__(self, database: Database, domain: str) -> None:
        self._database = database
        self._domain = domain

    async def untold(self, limit: int) -> list[LoopHeld]:
        async with self._database.connection() as connection:
            cursor = await connection.execute(_UNTOLD, {"domain": self._domain, "limit": limit})
            return [LoopHeld(*row) for row in await cursor.fetchall()]
