"""TLS to the control plane: who may vouch for it."""

from __future__ import annotations

import ssl


def client_context(authority: str) -> ssl.SSLContext:
    """`authority`: PEM of the only one; "": whom the system trusts. Raises ssl.SSLError where it is no certificate."""
    return ssl.create_default_context(cadata=authority or None)
