"""Who may ask the operator's API, and who may hand in mail by HTTP."""

from __future__ import annotations

import hashlib
import hmac
import re
import time
from collections.abc import Mapping

from fastapi import HTTPException, Request

from tinyfat.ports.mail import Envelope

SIGNATURE_SECONDS_MAX = 300  # an older signature is a replay
_SIGNATURE = re.compile("v1=[0-9a-f]{64}")


def require_operator(request: Request) -> None:
    given = request.headers.get("authorization", "")
    wanted = f"Bearer {request.app.state.operator_token}"
    if not hmac.compare_digest(given.encode("utf-8", "replace"), wanted.encode()):
        raise HTTPException(401, "This needs the operator's token: run the command on the host, with its TINYFAT_HOME.")


def inbound_signature(secret: str, timestamp: str, envelope: Envelope, recipient: str, raw: bytes) -> str:
    """`v1=` and the HMAC-SHA256, in hex, over timestamp, envelope and message (docs/inbound-http.md)."""
    head = "\n".join((timestamp, envelope.mail_from, recipient, envelope.client_ip, envelope.helo, ""))
    return "v1=" + hmac.new(secret.encode(), head.encode("utf-8", "replace") + raw, hashlib.sha256).hexdigest()


def signature_may_fit(secret: str, headers: Mapping[str, str]) -> bool:
    """By the headers alone, before the message is read. False, too, where no secret is set: then nobody may hand in
    mail."""
    timestamp, signature = headers.get("tinyfat-timestamp", ""), headers.get("tinyfat-signature", "")
    if not secret or not (timestamp.isascii() and timestamp.isdigit() and len(timestamp) <= 12):
        return False
    return _SIGNATURE.fullmatch(signature) is not None and abs(time.time() - int(timestamp)) <= SIGNATURE_SECONDS_MAX


def signature_fits(secret: str, request: Request, envelope: Envelope, recipient: str, raw: bytes) -> bool:
    """Is all of it what the secret's holder sent?"""
    if not signature_may_fit(secret, request.headers):
        return False
    timestamp = request.headers.get("tinyfat-timestamp", "")
    wanted = inbound_signature(secret, timestamp, envelope, recipient, raw)
    return hmac.compare_digest(request.headers.get("tinyfat-signature", "").encode("utf-8", "replace"), wanted.encode())
