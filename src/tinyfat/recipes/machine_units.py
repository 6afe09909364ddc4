"""The systemd units of a server: systemd.service(5), systemd.exec(5), systemd.path(5)."""

from __future__ import annotations

from tinyfat.domain.enrolment import (
    BOX_FOLDER,
    BOX_STATE_FOLDER,
    BOX_UNIT,
    BOX_USER,
    CONTROL_CA_FILE,
    CURRENT,
    ENROL_FILE,
    ENROL_UNIT,
    IDENTITY_PATH_UNIT,
    IDENTITY_UNIT,
    IDENTITY_WANTED,
    NODE_FOLDER,
    RUNTIMES_FOLDER,
    STATE_FOLDER,
)

FETCH_PROGRAM = "/etc/tinyfat/fetch_box.py"
STOP_SECONDS = 330  # OpenClaw finishes the turn it is at, for 315 s at most
EXIT_REFUSED = 78  # EX_CONFIG of sysexits(3): trying again changes nothing
_PYTHON = "/usr/bin/python3"
_PATHS = f"PYTHONPATH={BOX_FOLDER}/{CURRENT}"


def units() -> dict[str, str]:
    """File names under /etc/systemd/system, and their text."""
    return {
        BOX_UNIT: _box(),
        ENROL_UNIT: _enrol(),
        IDENTITY_UNIT: _identity(),
        IDENTITY_PATH_UNIT: _identity_path(),
    }


def _box() -> str:
    """Restarted for ever, ten seconds apart: a limit would leave an agent dead until somebody looks.

    Without RestrictSUIDSGID: under its filter OpenClaw cannot take the locks of its state, and ends with 78. What that
    would keep this user from is of no use to it, without capabilities and new privileges.
    """
    return f"""\
[Unit]
Description=TinyFat: the box of this machine's agent
Wants=network-online.target
After=network-online.target nftables.service
ConditionPathExists={BOX_STATE_FOLDER}/box.json
StartLimitIntervalSec=0

[Service]
User={BOX_USER}
Group={BOX_USER}
Environment={_PATHS} PYTHONUNBUFFERED=1 HOME={STATE_FOLDER}
WorkingDirectory={STATE_FOLDER}
ExecStart={_PYTHON} -m tinyfat.box --folder {BOX_STATE_FOLDER}
Restart=always
RestartSec=10
KillMode=mixed
TimeoutStopSec={STOP_SECONDS}
OOMPolicy=continue
MemoryMax=90%
TasksMax=4096
LimitNOFILE=65536
UMask=0077
NoNewPrivileges=yes
ProtectSystem=strict
ProtectHome=yes
PrivateTmp=yes
PrivateDevices=yes
ProtectKernelTunables=yes
ProtectKernelModules=yes
ProtectControlGroups=yes
LockPersonality=yes
CapabilityBoundingSet=
ReadWritePaths={STATE_FOLDER} {RUNTIMES_FOLDER} {NODE_FOLDER}

[Install]
WantedBy=multi-user.target
"""


def _enrol() -> str:
    """Once a boot: a key or a claim that came while the machine was off. A hundred tries, then the next boot."""
    return f"""\
[Unit]
Description=TinyFat: this machine learns who it is
Wants=network-online.target
After=network-online.target
ConditionPathExists={ENROL_FILE}
StartLimitIntervalSec=3600
StartLimitBurst=100

[Service]
Type=oneshot
Environment={_PATHS}
ExecStartPre={_PYTHON} -I {FETCH_PROGRAM} {ENROL_FILE} {CONTROL_CA_FILE} {BOX_FOLDER}
ExecStart={_PYTHON} -m tinyfat.box.enrol
Restart=on-failure
RestartSec=5
RestartPreventExitStatus={EXIT_REFUSED}
TimeoutStartSec=600
StandardOutput=journal+console
StandardError=journal+console

[Install]
WantedBy=multi-user.target
"""


def _identity() -> str:
    """The pause bounds what a box in foreign hands can cause: a fetch every few seconds, and nothing more."""
    return f"""\
[Unit]
Description=TinyFat: this machine's identity is fetched again
ConditionPathExists={ENROL_FILE}
StartLimitIntervalSec=0

[Service]
Type=oneshot
Environment={_PATHS}
ExecStart={_PYTHON} -m tinyfat.box.enrol
ExecStopPost=/bin/sleep 2
Restart=on-failure
RestartSec=10
RestartPreventExitStatus={EXIT_REFUSED}
TimeoutStartSec=600
"""


def _identity_path() -> str:
    """By the file's being there, not by its change: one that comes during a fetch causes another."""
    return f"""\
[Unit]
Description=TinyFat: the box asks for this machine's identity
StartLimitIntervalSec=0

[Path]
PathExists={IDENTITY_WANTED}
Unit={IDENTITY_UNIT}

[Install]
WantedBy=multi-user.target
"""
