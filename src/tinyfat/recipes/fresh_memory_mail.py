"""The mail an owner gets when their agent lives on, and what it remembered does not."""

from __future__ import annotations


def fresh_memory_subject(agent: str) -> str:
    return f"{agent} has another server, and its memory starts anew"


def fresh_memory_text(agent: str, address: str) -> str:
    """`address`: where mail for it goes."""
    return (
        f"The server that {agent} lived on was replaced, and what lay on it could not be taken along: what {agent} "
        "remembered of your conversations, the files it kept, and what was set up there.\n\n"
        f"{agent} has answered a first question on its other server. Its name, its address and its SSH host key are "
        "the same, and your SSH keys open it as before.\n\n"
        f"Go on writing to {address}; mail that came meanwhile is answered. In a conversation you had begun, say again "
        f"what {agent} should know of it. No mail is lost: what you wrote to each other is still there.\n"
    )
