"""The SSH key that servers are made with. Without one, Hetzner makes up a password for root and mails it around.

It is our SSH authority's public key, which the user-data trusts anyway (and takes root's login away).
"""

from __future__ import annotations

import hashlib

from hcloud import Client
from hcloud.ssh_keys import SSHKey

from tinyfat.drivers.hetzner_cloud import AlreadyThere, Busy, HetznerCloud
from tinyfat.drivers.machines.hetzner.labels import Labels
from tinyfat.drivers.machines.hetzner.seen import the_id


class Keys:
    def __init__(self, cloud: HetznerCloud, labels: Labels) -> None:
        self._cloud, self._labels = cloud, labels

    async def ensure(self, public_key: str) -> int | None:
        """Its id; None where there is no key to give. The project may know it already, under whatever name."""
        if not public_key:
            return None
        try:
            return await self._cloud.call("take our SSH key", lambda client: self._make(client, public_key))
        except AlreadyThere as error:  # given by somebody else a moment ago
            raise Busy(str(error)) from None

    def _make(self, client: Client, public_key: str) -> int:
        for known in client.ssh_keys.get_all():
            if _body(known.public_key or "") == _body(public_key):
                return the_id(known.id)
        name = f"tinyfat-{hashlib.sha256(_body(public_key).encode()).hexdigest()[:16]}"
        return the_id(client.ssh_keys.create(name, public_key, self._labels.all_of()).id)


def _body(public_key: str) -> str:
    """Type and key, without the comment."""
    return " ".join(public_key.split()[:2])


def api_keys(key_id: int | None) -> list[SSHKey]:
    return [] if key_id is None else [SSHKey(id=key_id)]
