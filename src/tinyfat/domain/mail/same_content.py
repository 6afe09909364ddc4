"""Is this the mail we have, come again, or another one that has its Message-ID?"""

from __future__ import annotations

from hashlib import sha256

from tinyfat.domain.mail.message import Mail


def content_digest(mail: Mail) -> str:
    """The same for a mail by whichever way it comes: trace fields, transfer encodings and line ends aside.

    A list's copy of a mail is not the mail: the one is not answered, and must not stand in the other's way.
    """
    digest = sha256()
    lines = "\n".join(line.rstrip() for line in mail.text.strip().split("\n"))
    for text in (mail.from_address, mail.subject, mail.date, "automatic" if mail.automatic else "", lines):
        digest.update(text.encode("utf-8", "replace") + b"\0")
    for one in mail.attachments:
        digest.update(one.filename.encode("utf-8", "replace") + b"\0" + sha256(one.content).digest())
    return digest.hexdigest()
