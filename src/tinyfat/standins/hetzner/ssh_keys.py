"""SSH keys of the project."""

from __future__ import annotations

import base64
import binascii
import hashlib

from tinyfat.standins.hetzner import errors
from tinyfat.standins.hetzner.calls import (
    Answer,
    ApiRoute,
    Call,
    Collection,
    basic_routes,
    find,
    take,
    take_labels,
    take_name,
    unused_name,
)
from tinyfat.standins.hetzner.resources import SshKey
from tinyfat.standins.hetzner.views import ssh_key_wire

SSH_KEYS = Collection("ssh_keys", "ssh_key", ssh_key_wire)
KINDS = ("ssh-ed25519", "ssh-rsa", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521")


async def create_ssh_key(call: Call) -> Answer:
    cloud = call.cloud
    name, labels = unused_name(call, SSH_KEYS, take_name(call.body)), take_labels(call.body)
    public_key = take(call.body, "public_key", str).strip()
    fingerprint = _fingerprint(public_key)
    if any(each.fingerprint == fingerprint for each in cloud.ssh_keys.values()):
        message = "SSH key with the same fingerprint already exists"
        raise errors.ApiError(409, "uniqueness_error", message, {"fields": [{"name": "public_key"}]})
    key = SshKey(cloud.next_id(), name, cloud.clock(), fingerprint, public_key, labels)
    cloud.ssh_keys[key.id] = key
    return Answer(201, {"ssh_key": ssh_key_wire(cloud, key)})


def _fingerprint(public_key: str) -> str:
    """MD5 of the key's bytes (RFC 4716 section 4), as the vendor shows it. Raises ApiError."""
    parts = public_key.split()
    try:
        blob = base64.b64decode(parts[1], validate=True) if len(parts) > 1 else b""
    except binascii.Error:
        blob = b""
    if not blob or parts[0] not in KINDS or parts[0].encode() not in blob[:40]:
        raise errors.invalid("public_key", "is not a valid SSH public key")
    digest = hashlib.md5(blob, usedforsecurity=False).hexdigest()
    return ":".join(digest[i : i + 2] for i in range(0, len(digest), 2))


async def delete_ssh_key(call: Call) -> Answer:
    key = find(call, SSH_KEYS)
    call.cloud.bury("ssh_keys", ssh_key_wire(call.cloud, key))
    del call.cloud.ssh_keys[key.id]
    return Answer(204)


ROUTES: list[ApiRoute] = [
    ("POST", "/ssh_keys", create_ssh_key),
    ("DELETE", "/ssh_keys/{id}", delete_ssh_key),
    *basic_routes(SSH_KEYS),
]
