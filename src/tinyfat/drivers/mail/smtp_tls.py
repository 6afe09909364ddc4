"""The certificate of the SMTP listener, as it stands in its files: whoever renews it (certbot, Caddy) puts another one
there, and the next session has it. Nothing is started again."""

from __future__ import annotations

import logging
import ssl
import time
from collections.abc import Callable
from pathlib import Path

LOOK_SECONDS = 10.0  # a new session looks at the files, so often at most

log = logging.getLogger(__name__)


class TlsFiles:
    """A pair that does not fit, as while one of the two is being written, leaves the one before in use, and is said
    once."""

    def __init__(self, certificate: Path, key: Path, clock: Callable[[], float] = time.monotonic) -> None:
        """Both PEM, the certificate with its chain. `clock`: seconds. Raises OSError, ssl.SSLError."""
        self._files = (certificate, key)
        self._clock = clock
        self._looked = clock()
        self._stamps = self._now()
        self._context = tls_context(certificate, key)

    def context(self) -> ssl.SSLContext:
        """For a session that begins now."""
        now = self._clock()
        if now - self._looked >= LOOK_SECONDS:
            self._looked = now
            self._renew()
        return self._context

    def _renew(self) -> None:
        try:
            stamps = self._now()
            if stamps == self._stamps:
                return
            self._stamps = stamps  # looked at: what does not fit is tried again once it changes
            self._context = tls_context(*self._files)
        except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
            log.error("the new certificate in %s is not used, the one before is: %s", self._files[0], error)
            return
        log.warning("SMTP has a new certificate, of %s", self._files[0])

    def _now(self) -> tuple[tuple[int, int, int], ...]:
        """Links are followed: certbot's lead to another file each time."""
        found = [file.stat() for file in self._files]
        return tuple((one.st_ino, one.st_mtime_ns, one.st_size) for one in found)


def tls_context(certificate: Path, key: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    return context
