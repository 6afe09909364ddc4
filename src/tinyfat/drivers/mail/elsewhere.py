"""A large mail's sender is proved in a worker process: its body is canonicalised and hashed under the GIL (RFC 6376
3.4), which holds all that this process serves for as long as it takes."""

from __future__ import annotations

from tinyfat.domain.failure_kinds import FailureId
from tinyfat.domain.failures import Failure
from tinyfat.drivers.mail.authentication import DnsSenderAuthentication
from tinyfat.engine.workers import WorkerBusy, WorkerFailed, Workers
from tinyfat.ports.mail import Authentication, AuthenticationUnknown, Envelope

HERE_BYTES_MAX = 64 * 1024
PROVE_SECONDS_MAX = 60.0


class ElsewhereAuthentication:
    """ports.mail.SenderAuthentication: `near` for small mails, the same in a process for others."""

    def __init__(
        self, near: DnsSenderAuthentication, workers: Workers, nameservers: tuple[str, ...] | None, seconds: float
    ) -> None:
        """`seconds`: for all of a mail's DNS together."""
        self._near, self._workers = near, workers
        self._nameservers, self._seconds = nameservers, seconds

    async def check(self, raw: bytes, envelope: Envelope, from_address: str) -> Authentication:
        if len(raw) <= HERE_BYTES_MAX:
            return await self._near.check(raw, envelope, from_address)
        asked = (raw, envelope, from_address, self._nameservers, self._seconds)
        whose = f"proof {envelope.client_ip}"
        try:
            return await self._workers.run(checked, *asked, size=len(raw), whose=whose, seconds=PROVE_SECONDS_MAX)
        except WorkerBusy as busy:
            raise AuthenticationUnknown(Failure(FailureId.SENDERS_BUSY).text()) from busy
        except WorkerFailed as failed:
            return Authentication(False, f"dmarc=permerror (not verified: {failed})")

    def close(self) -> None:
        self._near.close()


def checked(
    raw: bytes, envelope: Envelope, from_address: str, nameservers: tuple[str, ...] | None, seconds: float
) -> Authentication:
    """In the worker."""
    near = DnsSenderAuthentication(nameservers, seconds)
    try:
        return near.checked(raw, envelope, from_address)
    finally:
        near.close()
