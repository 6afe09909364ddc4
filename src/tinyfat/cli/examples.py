"""An example at the foot of each help page."""

from __future__ import annotations

from typing import Any

EXAMPLES = {
    "up": "TINYFAT_SMARTHOST=smtp://USER:PASSWORD@smtp.example.org:587 tinyfat up",
    "demo": "tinyfat demo",
    "version": "tinyfat version",
    "doctor": "tinyfat doctor --dns",
    "ssh": "tinyfat ssh ada --why 'disk is full' -- df -h",
    "audit": "tinyfat audit ada",
    "money": "tinyfat money",
    "usage": "tinyfat usage ada --by model",
    "models": "tinyfat models",
    "fleet": "tinyfat fleet --look",
    "disk": "tinyfat disk",
    "box": "tinyfat box --folder /var/lib/tinyfat-box",
    "agent create": "tinyfat agent create ada --owner you@example.org --wait",
    "agent wait": "tinyfat agent wait ada --timeout 600",
    "agent retry": "tinyfat agent retry ada --wait",
    "agent list": "tinyfat agent list --json",
    "agent show": "tinyfat agent show ada",
    "agent export": "tinyfat agent export ada ada.tar.gz",
    "agent destroy": "tinyfat agent destroy ada --export ada.tar.gz",
    "agent replace": "tinyfat agent replace ada --size cx33",
    "agent publish": "tinyfat agent publish ada",
    "agent unpublish": "tinyfat agent unpublish ada",
    "agent allow": "tinyfat agent allow ada @example.org",
    "agent deny": "tinyfat agent deny ada friend@example.org",
    "agent logs": "tinyfat agent logs ada --follow",
    "agent keys add": "tinyfat agent keys add ada ~/.ssh/id_ed25519.pub",
    "agent keys list": "tinyfat agent keys list ada",
    "agent keys remove": "tinyfat agent keys remove ada laptop",
    "mail list": "tinyfat mail list --state quarantined --limit 20",
    "mail show": "tinyfat mail show 0198f2c1",
    "mail release": "tinyfat mail release 0198f2c1",
    "cap set": "tinyfat cap set ada --month 8 --day 2",
    "cap show": "tinyfat cap show ada",
    "cap kill": "tinyfat cap kill ada",
    "cap unkill": "tinyfat cap unkill ada",
    "key add": "tinyfat key add ada --label 'her notebook'",
    "key list": "tinyfat key list ada",
    "key revoke": "tinyfat key revoke ada tf-Qm3x",
    "byok set": "tinyfat byok set ada --vendor anthropic < key.txt",
    "byok list": "tinyfat byok list ada",
    "byok clear": "tinyfat byok clear ada --vendor anthropic",
    "image build": "tinyfat image build --runtime openclaw",
    "image freeze": "tinyfat image freeze openclaw-2026.9.6-on-debian",
    "image list": "tinyfat image list --driver hetzner",
    "image prune": "tinyfat image prune --driver nspawn --keep 2",
    "backup home": "tinyfat backup home tinyfat-2026-12-01.tar",
    "backup restore": "TINYFAT_HOME=~/restored tinyfat backup restore tinyfat-2026-12-01.tar",
    "serve relay": "TINYFAT_DATABASE_URL=postgresql://... tinyfat serve relay",
    "standin hetzner": "tinyfat standin hetzner --listen 127.0.0.1:8090 --token any",
    "standin cloudflare": "tinyfat standin cloudflare --zone example.org",
}


def add_examples(command: Any, path: str = "") -> None:
    """To each command beneath this one, as Typer's `typer.main.get_command` gives it."""
    for name, beneath in getattr(command, "commands", {}).items():
        add_examples(beneath, f"{path} {name}".strip())
    if path in EXAMPLES:
        command.epilog = f"Example: {EXAMPLES[path]}"
