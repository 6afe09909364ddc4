"""What a server lets in, and what its agent may not reach."""

from __future__ import annotations

from tinyfat.domain.enrolment import BOX_USER, INPUT_RULES_FILE


def ruleset() -> str:
    """/etc/nftables.conf (nft(8)). Its own table alone is replaced, so that what an owner adds stays. The open ports
    are in a file of their own, since they change with the machine's identity.

    Neighbour discovery (RFC 4861) and DHCPv6 (RFC 8415) are no answers to anything a connection's state would know.
    Protocols are given by number (1 is ICMP, 58 ICMPv6): a small Debian has no /etc/protocols. 169.254.169.254 and
    fe80::a9fe:a9fe are metadata services: the runtime has no business with user-data.
    """
    return f"""\
#!/usr/sbin/nft -f
table inet tinyfat
delete table inet tinyfat
table inet tinyfat {{
    chain input {{
        type filter hook input priority filter; policy drop;
        ct state established,related accept
        ct state invalid drop
        iif lo accept
        meta l4proto {{ 1, 58 }} accept
        ip6 saddr fe80::/10 udp dport 546 accept
        include "{INPUT_RULES_FILE}"
    }}
    chain output {{
        type filter hook output priority filter; policy accept;
        meta skuid {BOX_USER} ip daddr 169.254.169.254 reject
        meta skuid {BOX_USER} ip6 daddr fe80::a9fe:a9fe reject
    }}
}}
"""
