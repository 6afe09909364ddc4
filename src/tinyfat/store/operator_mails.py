"""The operator's mailbox: mail to postmaster@, abuse@ and their like. Anybody may write there, so its room is bounded,
in all and by sender."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from psycopg.rows import TupleRow

from tinyfat.domain.failure_kinds import FailureId
from tinyfat.domain.failures import Failure
from tinyfat.domain.mail.message import Mail
from tinyfat.ports.ledger import NotFound, OperatorMail
from tinyfat.ports.mail import Envelope, NeverRoom, NoRoom
from tinyfat.store import advisory_locks
from tinyfat.store.database import Database, storable

MIB = 1024**2
MAIL_BYTES_MAX = 10 * MIB  # of one: reports of receivers are smaller
BYTES_MAX = 200 * MIB
MAILS_MAX = 5000
SENDER_BYTES_MAX = 20 * MIB
SENDER_MAILS_MAX = 200
LIST_MAX = 10_000

_COLUMNS = "id::text, mailbox, recipient, sender, subject, message_id, client_ip, size, at"
_ROOM = (
    "select count(*), coalesce(sum(size), 0)::bigint, count(*) filter (where sender = %(sender)s), "
    "coalesce(sum(size) filter (where sender = %(sender)s), 0)::bigint from operator_mails"
)


class OperatorMailStore:
    """Implements ports/mail OperatorMailbox."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def keep(self, mailbox: str, recipient: str, envelope: Envelope, mail: Mail, raw: bytes) -> str:
        """On disk when it returns, with its id; the same mail to the same mailbox once. Raises NoRoom."""
        if len(raw) > MAIL_BYTES_MAX:
            raise NeverRoom(Failure(FailureId.STRANGERS_MAIL_TOO_LARGE).text())
        sender = storable(mail.from_address or envelope.mail_from)
        digest = hashlib.sha256(mailbox.encode() + b"\0" + raw).digest()
        async with self._database.transaction() as connection:
            await connection.execute("select pg_advisory_xact_lock(%s)", (advisory_locks.OPERATOR_MAIL,))
            cursor = await connection.execute("select id::text from operator_mails where digest = %s", (digest,))
            if known := await cursor.fetchone():
                return str(known[0])
            row = await (await connection.execute(_ROOM, {"sender": sender})).fetchone()
            assert row is not None
            _complain(row, len(raw))
            cursor = await connection.execute(
                "insert into operator_mails "
                "(mailbox, recipient, sender, subject, message_id, client_ip, digest, size, raw) "
                "values (%s, %s, %s, %s, %s, %s, %s, %s, %b) returning id::text",
                (mailbox, storable(recipient), sender, storable(mail.subject), storable(mail.message_id),
                 storable(envelope.client_ip), digest, len(raw), raw),
            )  # fmt: skip
            kept = await cursor.fetchone()
            assert kept is not None
            return str(kept[0])

    async def list(self, limit: int) -> list[OperatorMail]:
        """The newest `limit`, LIST_MAX at most, oldest first."""
        async with self._database.connection() as connection:
            cursor = await connection.execute(
                f"select {_COLUMNS} from operator_mails order by position desc limit %s",  # noqa: S608
                (min(limit, LIST_MAX),),
            )
            return [OperatorMail(*row) for row in reversed(await cursor.fetchall())]

    async def get(self, beginning: str) -> tuple[OperatorMail, bytes]:
        """By its id or how that begins, with the mail as it came. Raises NotFound."""
        async with self._database.connection() as connection:
            cursor = await connection.execute(
                f"select {_COLUMNS}, raw from operator_mails where starts_with(id::text, %s) limit 2",  # noqa: S608
                (beginning.lower(),),
            )
            rows: Sequence[tuple[object, ...]] = await cursor.fetchall()
        if len(rows) != 1 or not beginning:
            raise NotFound(f"There is no mail of the operator's with the id {beginning!r}, or more than one.")
        *columns, raw = rows[0]
        return OperatorMail(*columns), bytes(raw)  # type: ignore[arg-type, call-overload]


def _complain(kept: TupleRow, size: int) -> None:
    """`kept`: as _ROOM counts it. Raises NoRoom."""
    mails, total, senders_mails, senders_total = kept
    if senders_mails >= SENDER_MAILS_MAX or senders_total + size > SENDER_BYTES_MAX:
        raise NoRoom(Failure(FailureId.SENDERS_MAIL_WAITS).text())
    if mails >= MAILS_MAX or total + size > BYTES_MAX:
        raise NoRoom(Failure(FailureId.STRANGERS_MAIL_WAITS).text())
