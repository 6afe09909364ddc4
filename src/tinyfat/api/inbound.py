"""Mail comes in by HTTP, for providers that receive it for us: the raw message, its envelope in headers, a signature.

    POST /mail/inbound
    Content-Type: message/rfc822
    TinyFat-Mail-From: you@example.org        (may be empty: the null return path)
    TinyFat-Rcpt-To: ada@agents.example.org
    TinyFat-Client-Ip: 203.0.113.9            (optional: whom the provider heard it from; lets SPF be checked)
    TinyFat-Helo: mail.example.org            (optional)
    TinyFat-Timestamp: 1794000000             (Unix seconds)
    TinyFat-Signature: v1=<hex>               (keys.inbound_signature)

docs/inbound-http.md has the small worker that does this at Cloudflare, and the lines for others.
"""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from tinyfat.api.keys import signature_fits
from tinyfat.ports.ledger import StoreUnavailable
from tinyfat.ports.mail import AuthenticationUnknown, Envelope, Intake, UnknownRecipient

RETRY_SECONDS = "30"

router = APIRouter()


@router.post("/mail/inbound")
async def inbound(request: Request) -> JSONResponse:
    state = request.app.state
    raw = await _body(request, state.mail_size_max)
    if raw is None:
        return _answer(413, f"The message is over {state.mail_size_max} bytes.")
    mail_from = request.headers.get("tinyfat-mail-from", "")
    recipient = request.headers.get("tinyfat-rcpt-to", "")
    if not signature_fits(state.inbound_secret, request, mail_from, recipient, raw):
        return _answer(401, "The signature does not fit: see docs/inbound-http.md.")
    if not recipient or not raw:
        return _answer(400, "TinyFat-Rcpt-To and the raw message as the body are needed.")
    # Whom the provider heard it from; where it does not say, nobody is trusted but what DKIM proves. The provider's
    # own address counts only without that header, as in a test on one's own machine.
    peer = request.client.host if request.client else ""
    envelope = Envelope(
        request.headers.get("tinyfat-client-ip", peer), request.headers.get("tinyfat-helo", ""), mail_from
    )
    intake: Intake = state.intake
    try:
        kept = await intake.accept(envelope, [recipient], raw)
    except UnknownRecipient as unknown:
        return _answer(404, str(unknown))
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
