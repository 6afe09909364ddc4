"""What a user would write: a mail on standard input, the runtime's answer by sendmail. Run by pipe(8); stands alone.

by_hand_pipe.py URL TOKEN SENDER RECIPIENT
"""

import email
import email.policy
import json
import subprocess
import sys
from email.message import EmailMessage
from email.utils import formatdate, make_msgid
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "packages"))

from websockets.sync.client import connect

TEMPORARY_FAILURE = 75  # EX_TEMPFAIL: Postfix keeps the mail and tries again
ANSWER_SECONDS_MAX = 300


def ask(url, token, session, key, text):
    with connect(url, compression=None, proxy=None, max_size=None) as socket:
        json.loads(socket.recv())  # connect.challenge
        call(socket, "1", "connect", {
            "minProtocol": 4, "maxProtocol": 4, "role": "operator", "caps": [], "auth": {"token": token},
            "scopes": ["operator.admin", "operator.read", "operator.write"],
            "client": {"id": "gateway-client", "version": "1", "platform": "linux", "mode": "backend"},
        })  # fmt: skip
        payload = call(socket, "2", "agent", {
            "message": text, "sessionKey": session, "idempotencyKey": key, "deliver": False,
            "timeout": ANSWER_SECONDS_MAX,
        })  # fmt: skip
        return "\n\n".join(part["text"] for part in payload["result"]["payloads"])


def call(socket, number, method, params):
    socket.send(json.dumps({"type": "req", "id": number, "method": method, "params": params}))
    while True:
        frame = json.loads(socket.recv(ANSWER_SECONDS_MAX))
        if frame.get("id") != number or frame["payload"].get("status") == "accepted":
            continue
        if not frame["ok"]:
            raise RuntimeError(frame["error"]["message"])
        return frame["payload"]


def main():
    url, token, sender, recipient = sys.argv[1:]
    mail = email.message_from_binary_file(sys.stdin.buffer, policy=email.policy.default)
    message_id = mail["Message-ID"]
    references = (mail["References"] or "").split()
    session = f"email:{(references or [message_id])[0]}"
    text = ask(url, token, session, message_id, mail.get_body(("plain",)).get_content())
    reply = EmailMessage()
    reply["From"], reply["To"], reply["Subject"] = recipient, sender, f"Re: {mail['Subject']}"
    reply["Date"], reply["Message-ID"] = formatdate(), make_msgid(domain=recipient.partition("@")[2])
    reply["In-Reply-To"], reply["References"] = message_id, " ".join([*references, message_id])
    reply["Auto-Submitted"] = "auto-replied"
    reply.set_content(text)
    argv = ["/usr/sbin/sendmail", "-i", "-f", recipient, "--", sender]
    subprocess.run(argv, input=reply.as_bytes(), check=True)


if __name__ == "__main__":
    try:
        main()
    except Exception as error:
        print(f"{type(error).__name__}: {error}")
        sys.exit(TEMPORARY_FAILURE)
