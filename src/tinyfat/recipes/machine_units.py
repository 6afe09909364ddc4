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
    IDENTITY_TIMER_UNIT,
    IDENTITY_UNIT,
    IDENTITY_WANTED,
    NODE_FOLDER,
    RUNTIMES_FOLDER,
    SITE_FOLDER,
    SITE_ROOT,
    SITE_STATE_FOLDER,
    SITE_UNIT,
    SITE_USER,
    SITE_VIEW,
    SITE_VIEW_UNIT,
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
        IDENTITY_TIMER_UNIT: _identity_timer(),
        SITE_UNIT: _site(),
        SITE_VIEW_UNIT: _site_view(),
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


def _identity_timer() -> str:
    """Once a day, asked or not: a certificate of ours is renewed in time, and what could not be set is tried again."""
    return f"""\
[Unit]
Description=TinyFat: this machine's identity is fetched once a day

[Timer]
OnActiveSec=1d
OnUnitActiveSec=1d
RandomizedDelaySec=1h
Unit={IDENTITY_UNIT}

[Install]
WantedBy=multi-user.target
"""


def _site_view() -> str:
    """A link that the agent made, or was made to make, must not show the world what its server can read besides: its
    own key, say. Files are served from here, where the kernel follows none."""
    return f"""\
[Unit]
Description=TinyFat: the agent's folder, as its site sees it
StopWhenUnneeded=yes

[Mount]
What={STATE_FOLDER}
Where={SITE_VIEW}
Type=none
Options=bind,ro,nosuid,nodev,noexec,nosymfollow
"""


def _site() -> str:
    """In a root of its own (systemd 252 ignores a TemporaryFileSystem= on "/"), without /proc, with what TLS and names
    need. It may read whatever it sees, so that the modes an agent gives its pages do not matter.

    A new certificate is taken up without a restart: --force, since the words of the configuration are as they were. It
    is told so through a socket in a folder of its own user's; no port administers it.

    CAP_DAC_READ_SEARCH also opens files by a handle, whatever is mounted: that call is filtered out.
    """
    seen = ("/usr/bin/caddy", "/lib", "-/lib64", "/etc/ssl/certs", "/usr/share/ca-certificates", "/etc/resolv.conf")
    shown = " ".join((*seen, "/etc/hosts", "-/run/systemd/resolve", "/run/systemd/notify", SITE_FOLDER))
    return f"""\
[Unit]
Description=TinyFat: the site of this machine's agent
Wants=network-online.target
Requires={SITE_VIEW_UNIT}
After=network-online.target nftables.service {SITE_VIEW_UNIT}
ConditionPathExists={SITE_FOLDER}/Caddyfile
StartLimitIntervalSec=0

[Service]
Type=notify
User={SITE_USER}
Group={SITE_USER}
Environment=HOME={SITE_STATE_FOLDER}
ExecStart=/usr/bin/caddy run --config {SITE_FOLDER}/Caddyfile --adapter caddyfile
ExecReload=/usr/bin/caddy reload --config {SITE_FOLDER}/Caddyfile --adapter caddyfile --force
Restart=always
RestartSec=5
TimeoutStartSec=60
TimeoutStopSec=10
MemoryMax=256M
TasksMax=256
LimitNOFILE=65536
UMask=0077
StateDirectory={SITE_STATE_FOLDER.removeprefix("/var/lib/")}
StateDirectoryMode=0700
RootDirectory={SITE_ROOT}
MountAPIVFS=no
BindReadOnlyPaths={shown}
BindPaths={SITE_VIEW}
AmbientCapabilities=CAP_NET_BIND_SERVICE CAP_DAC_READ_SEARCH
CapabilityBoundingSet=CAP_NET_BIND_SERVICE CAP_DAC_READ_SEARCH
NoNewPrivileges=yes
LockPersonality=yes
MemoryDenyWriteExecute=yes
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~@privileged @resources open_by_handle_at name_to_handle_at

[Install]
WantedBy=multi-user.target
"""
