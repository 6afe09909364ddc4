"""Every wait and bound of the box, in one place. Tests pass shorter ones."""

from __future__ import annotations

from dataclasses import dataclass

from tinyfat.domain.link import HEARTBEAT_SECONDS

_DOUBLINGS_MAX = 30


@dataclass(frozen=True, slots=True)
class Pace:
    """All in seconds where the name does not say otherwise."""

    heartbeat: float = HEARTBEAT_SECONDS

    # The link to the control plane.
    dial_timeout: float = 10.0
    dial_pause_first: float = 0.1
    dial_pause_max: float = 5.0
    token_refused_pause: float = 30.0
    welcome_timeout: float = 10.0
    ping_interval: float = 10.0
    ping_timeout: float = 30.0  # a pong waits behind the frame that is just being sent

    # The runtime.
    install_pause_first: float = 10.0
    install_pause_max: float = 300.0
    startup_max: float = 180.0  # at first; then by this machine's own history (box/patience)
    startup_longest: float = 3600.0
    ready_poll: float = 0.1
    probe_interval: float = 5.0
    probe_timeout: float = 5.0
    limit_grace: float = 20.0  # for a runtime whose model's vendor lets no call through until after the turn
    probe_failures_max: int = 3  # in a row; then it is restarted
    unhealthy_stop: float = 10.0  # what a hung or swollen runtime gets between SIGTERM and SIGKILL
    restart_pause_first: float = 0.5
    restart_pause_max: float = 30.0
    steady: float = 60.0  # ready for so long: its earlier deaths are forgotten
    deaths_max: int = 5
    deaths_window: float = 300.0
    breaker_pause: float = 300.0  # one try each, while the breaker is open

    # Turns.
    ask_pause_first: float = 0.2
    ask_pause_max: float = 5.0
    drain_max: float = 300.0  # before its state goes to another machine, for the turns under way
    ask_grace: float = 8.0  # beyond a turn's deadline, for its runtime to stop what it began


def backoff(attempt: int, first: float, longest: float) -> float:
    """Seconds before attempt `attempt` + 1 (the first attempt is 0): doubled each time, up to `longest`."""
    return min(longest, first * float(1 << min(attempt, _DOUBLINGS_MAX)))
