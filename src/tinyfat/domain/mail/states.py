"""The named states a message of the ledger can be in. Every message, however broken, is always in one of them."""

from __future__ import annotations

from enum import StrEnum


class MessageState(StrEnum):
    # In and out.
    QUEUED = "queued"  # in: its turn waits; out: not yet offered to the smarthost

    # In: what became of a mail to an agent.
    RUNNING = "running"  # the runtime has it
    ANSWERED = "answered"
    FAILED = "failed"  # answered with bad news, for good
    SILENT = "silent"  # the agent chose not to answer; its sender was told so
    QUARANTINED = "quarantined"  # a stranger's, or unproved: the owner may release it
    IGNORED = "ignored"  # automatic, or a loop: never answered
    HELD = "held"  # over a rate cap: the owner may release it
    BOUNCE = "bounce"  # a report about a mail of ours

    # Out: what became of a reply.
    SENT = "sent"  # the smarthost took it
    DEFERRED = "deferred"  # 4xx or no answer: it will be tried again
    REFUSED = "refused"  # 5xx
    EXPIRED = "expired"  # deferred for longer than we try
    BOUNCED = "bounced"  # taken, and returned later
