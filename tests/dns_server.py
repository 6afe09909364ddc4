"""A real DNS server on loopback, with the records a test gives it."""

from __future__ import annotations

import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rrset


@dataclass
class Zone:
    """Names in lower case without the last dot; values as in a zone file."""

    records: dict[tuple[str, str], list[str]] = field(default_factory=dict)
    failing: set[str] = field(default_factory=set)  # SERVFAIL for these names
    silent: set[str] = field(default_factory=set)  # no answer at all
    asked: list[tuple[str, str]] = field(default_factory=list)
    address: str = ""  # "127.0.0.1:port"

    def txt(self, name: str, *texts: bytes) -> None:
        """TXT records, each split into strings of 255 bytes."""
        self.records[name, "TXT"] = [
            " ".join(f'"{_escaped(text[n : n + 255])}"' for n in range(0, max(1, len(text)), 255)) for text in texts
        ]

    def answer(self, query: dns.message.Message) -> dns.message.Message | None:
        question = query.question[0]
        name = question.name.to_text(omit_final_dot=True).lower()
        kind = dns.rdatatype.to_text(question.rdtype)
        self.asked.append((name, kind))
        if name in self.silent:
            return None
        response = dns.message.make_response(query)
        response.flags |= dns.flags.AA | dns.flags.RA
        if name in self.failing:
            response.set_rcode(dns.rcode.SERVFAIL)
        elif values := self.records.get((name, kind)):
            response.answer.append(dns.rrset.from_text_list(question.name, 300, "IN", kind, values))
        elif not any(known == name or known.endswith(f".{name}") for known, _ in self.records):
            response.set_rcode(dns.rcode.NXDOMAIN)
        return response


def _escaped(text: bytes) -> str:
    return "".join(f"\\{byte:03d}" if byte < 32 or byte > 126 or byte in b'"\\' else chr(byte) for byte in text)


@contextmanager
def dns_server(zone: Zone) -> Iterator[Zone]:
    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            data, socket = self.request
            response = zone.answer(dns.message.from_wire(data))
            if response is not None:
                socket.sendto(response.to_wire(max_size=65_000), self.client_address)

    with socketserver.ThreadingUDPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        zone.address = f"127.0.0.1:{server.server_address[1]}"
        try:
            yield zone
        finally:
            server.shutdown()
            thread.join()
