"""A small authoritative DNS server (RFC 1034, 1035) for zones that somebody else keeps."""
