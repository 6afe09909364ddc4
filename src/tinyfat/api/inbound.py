"""Mail comes in by HTTP, for providers that receive it for us: the raw message, its envelope in headers, a signature.

docs/inbound-http.md has the headers, the signature, and the small worker that does this at Cloudflare.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Mapping
from dataclasses import replace

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from tinyfat.api.keys import signature_fits, signature_may_fit
from tinyfat.domain.failure_kinds import FailureId
from tinyfat.domain.failures import Failure
from tinyfat.ports.ledger import StoreUnavailable
from tinyfat.ports.mail import (
    AuthenticationUnknown,
    Envelope,
    Intake,
    MailBusy,
    MailUnreadable,
    NeverRoom,
    NoRoom,
    RecipientAway,
    UnknownRecipient,
)

RETRY_SECONDS = "30"
UNSIGNED_WORDS = "The signature does not fit, or TINYFAT_INBOUND_SECRET is not set: see docs/inbound-http.md."

# Of the provider's own house, or of nobody's: RFC 1122, 1918, 3927, 4193, 4291, 5771, 6598, 6890.
_INSIDE = tuple(
    ipaddress.ip_network(network)
    for network in (
        *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12"),
        *("192.0.0.0/24", "192.168.0.0/16", "224.0.0.0/3"),
        *("::/96", "64:ff9b:1::/48", "fc00::/7", "fe80::/10", "fec0::/10", "ff00::/8"),
    )
)

router = APIRouter()


@router.post("/mail/inbound")
async def inbound(request: Request) -> JSONResponse:
    """`api/gate` has judged the headers and bounded the body."""
    state = request.app.state
    raw = await request.body()
    recipient = _single(request, "rcpt-to")
    said = Envelope(*(_single(request, name) for name in ("client-ip", "helo", "mail-from")))
    # The digest of a large mail takes tens of milliseconds; hashlib lets go of the GIL.
    if not await asyncio.to_thread(signature_fits, state.inbound_secret, request, said, recipient, raw):
        return _answer(401, UNSIGNED_WORDS)
    if not recipient or not raw:
        return _answer(400, "TinyFat-Rcpt-To and the raw message as the body are needed.")
    envelope = replace(said, client_ip=client_address(said.client_ip))
    intake: Intake = state.intake
    try:
        kept = await intake.accept(envelope, [recipient], raw)
    except UnknownRecipient as unknown:
        return _answer(404, str(unknown))
    except NeverRoom as error:
        return _answer(413, str(error))
    except NoRoom as error:  # RFC 4918 11.5
        return JSONResponse({"error": str(error)}, 507, {"Retry-After": RETRY_SECONDS})
    except MailUnreadable as error:
        return _answer(422, str(error))
    except StoreUnavailable:
        words = Failure(FailureId.LEDGER_AWAY).text()
        return JSONResponse({"error": words}, 503, {"Retry-After": RETRY_SECONDS})
    except (AuthenticationUnknown, MailBusy, RecipientAway) as error:
        return JSONResponse({"error": str(error)}, 503, {"Retry-After": RETRY_SECONDS})
    return JSONResponse({"kept": kept}, 202)


def head_refusal(headers: Mapping[str, str], secret: str) -> tuple[int, str] | None:
    """What the headers alone say against a message that has not been read."""
    if not signature_may_fit(secret, headers):
        return 401, UNSIGNED_WORDS
    if not headers.get("tinyfat-rcpt-to"):
        return 400, "TinyFat-Rcpt-To and the raw message as the body are needed."
    return None


def _single(request: Request, name: str) -> str:
    """One that is there twice says nothing."""
    values = request.headers.getlist(f"tinyfat-{name}")
    return values[0] if len(values) == 1 else ""


def client_address(said: str) -> str:
    """Whom the provider heard the mail from. "" where it does not say, or says what is no address of the world's: then
    nothing is known of it. Never the provider's own address: that may be one we trust."""
    try:
        address = ipaddress.ip_address(said.strip())
    except ValueError:
        return ""
    address = getattr(address, "ipv4_mapped", None) or address
    if getattr(address, "scope_id", None) or any(address in network for network in _INSIDE):
        return ""
    return str(address)


def _answer(status: int, error: str) -> JSONResponse:
    return JSONResponse({"error": error}, status)
