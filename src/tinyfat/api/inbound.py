"""Mail comes in by HTTP, for providers that receive it for us: the raw message, its envelope in headers, a signature.

docs/inbound-http.md has the headers, the signature, and the small worker that does this at Cloudflare.
"""

from __future__ import annotations

from dataclasses import replace

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from tinyfat.api.keys import signature_fits
from tinyfat.ports.ledger import StoreUnavailable
from tinyfat.ports.mail import AuthenticationUnknown, Envelope, Intake, NeverRoom, NoRoom, UnknownRecipient

RETRY_SECONDS = "30"

router = APIRouter()


@router.post("/mail/inbound")
async def inbound(request: Request) -> JSONResponse:
    state = request.app.state
    raw = await _body(request, state.mail_size_max)
    if raw is None:
        return _answer(413, f"The message is over {state.mail_size_max} bytes.")
    recipient = request.headers.get("tinyfat-rcpt-to", "")
    said = Envelope(*(request.headers.get(f"tinyfat-{name}", "") for name in ("client-ip", "helo", "mail-from")))
    if not signature_fits(state.inbound_secret, request, said, recipient, raw):
        return _answer(
            401, "The signature does not fit, or TINYFAT_INBOUND_SECRET is not set: see docs/inbound-http.md."
        )
    if not recipient or not raw:
        return _answer(400, "TinyFat-Rcpt-To and the raw message as the body are needed.")
    # Where the provider does not say whom it heard it from, its own address counts: as in a test on one's own machine.
    peer = request.client.host if request.client else ""
    envelope = said if said.client_ip else replace(said, client_ip=peer)
    intake: Intake = state.intake
    try:
        kept = await intake.accept(envelope, [recipient], raw)
    except UnknownRecipient as unknown:
        return _answer(404, str(unknown))
    except NeverRoom as error:
        return _answer(413, str(error))
    except NoRoom as error:  # RFC 4918 11.5
        return JSONResponse({"error": str(error)}, 507, {"Retry-After": RETRY_SECONDS})
    except (StoreUnavailable, AuthenticationUnknown) as error:
        return JSONResponse({"error": str(error)}, 503, {"Retry-After": RETRY_SECONDS})
    return JSONResponse({"kept": kept}, 202)


async def _body(request: Request, size_max: int) -> bytes | None:
    """None where it is too large; then the rest is not read."""
    pieces: list[bytes] = []
    size = 0
    async for piece in request.stream():
        size += len(piece)
        if size > size_max:
            return None
        pieces.append(piece)
    return b"".join(pieces)


def _answer(status: int, error: str) -> JSONResponse:
    return JSONResponse({"error": error}, status)
