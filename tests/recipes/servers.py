"""A server's order, as the recipes' tests know it."""

from __future__ import annotations

from dataclasses import replace

from tinyfat.domain.machines import MachineOrder, ServerOrder

LINK_TOKEN = "the-link-token-is-learnt-by-enrolling"
OWNER_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIMgxVUM3Pk0liuXD3BPoXwgLuN+s0CrFPNl68jxlsHlr ada's laptop"
SSH_CA = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOIoRAQTlYfZLuWsB+/vSwhdPKgTMKSDel1aMOJ5YZ2v tinyfat"
SERVER = ServerOrder(
    hostname="ada.agents.example.org",
    control_url="https://192.0.2.1:8027",
    control_ca="-----BEGIN CERTIFICATE-----\nMIIBLTCB4KADAgECAgEBMAUGAytlcDAc\n-----END CERTIFICATE-----\n",
    enrolment_token="0123456789abcdef",
    box_sha256="a1" * 32,
    ssh_ca=SSH_CA,
    owner_keys=(OWNER_KEY,),
    ssh_networks=("198.51.100.0/24", "2001:db8::/32"),
    published=True,
)


def order(**changes: object) -> MachineOrder:
    server = replace(SERVER, **changes)  # type: ignore[arg-type]
    machine_id = "3f1f0f5e-0000-4000-8000-000000000001"
    return MachineOrder(machine_id, "ada", "openclaw", "wss://192.0.2.1:8027/box/link", LINK_TOKEN, server)
