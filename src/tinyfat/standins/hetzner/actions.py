"""Actions: work that takes time. Each ends at its due time at the soonest, once the host has done its part; one
resource's actions end in their order. What an action brings about is the effect registered under its command."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Coroutine
from typing import Any

from tinyfat.machine_hosts.machine_host import MachineHostError
from tinyfat.standins.hetzner.cloud import Cloud
from tinyfat.standins.hetzner.resources import Action
from tinyfat.standins.lies import LieName

ACTIONS_KEPT_MAX = 10_000
PROGRESS_MAX = 99  # per cent, until it has ended

Effect = Callable[[Cloud, Action], None]
Work = Callable[[], Coroutine[Any, Any, Any]]
_EFFECTS: dict[str, Effect] = {}


class ActionFailed(Exception):
    """Raised by an effect: the action ends in an error."""


def effect(command: str) -> Callable[[Effect], Effect]:
    """Register what an action of this command brings about when it ends well."""

    def register(function: Effect) -> Effect:
        _EFFECTS[command] = function
        return function

    return register


def begin(
    cloud: Cloud,
    command: str,
    resources: list[tuple[str, int]],
    arguments: dict[str, Any] | None = None,
    *,
    work: Work | None = None,
    after: Action | None = None,
    lied: bool = False,
) -> Action:
    """`work` is what the host does; where it is lied about, it is not done. `after`: it starts when that one is due."""
    now = cloud.clock()
    due = (after.due if after else now) + cloud.options.action_seconds
    action = Action(cloud.next_id(), command, list(resources), now, due, arguments or {}, lied=lied)
    if cloud.lies.tell(LieName.ACTION_HANGS, command):
        action.hung_at = cloud.lies.pick(0, PROGRESS_MAX)
        action.lied = lied or not cloud.lies.effect_comes()
    if work is not None and not action.lied:
        cloud.work[action.id] = asyncio.create_task(work())
    cloud.actions[action.id] = cloud.pending[action.id] = action
    cloud.changed = True
    _forget_old(cloud)
    return action


def done(cloud: Cloud, command: str, resources: list[tuple[str, int]]) -> Action:
    """An action that has ended at once."""
    now = cloud.clock()
    action = Action(cloud.next_id(), command, list(resources), now, now, {}, "success", now, settled=True)
    cloud.actions[action.id] = action
    cloud.changed = True
    return action


def settle(cloud: Cloud) -> None:
    """End what is due."""
    now = cloud.clock()
    held: set[tuple[str, int]] = set()
    cloud.pending = {number: action for number, action in cloud.pending.items() if not action.settled}
    for action in list(cloud.pending.values()):
        task = cloud.work.get(action.id)
        ready = action.due <= now and (task is None or task.done()) and not held.intersection(action.resources)
        if ready:
            _end(cloud, action, now)
        else:
            held.update(action.resources)


def _end(cloud: Cloud, action: Action, now: float) -> None:
    action.settled, cloud.changed = True, True
    task = cloud.work.pop(action.id, None)
    failure = _failure(task)
    if failure is None and task is not None:
        action.arguments["result"] = task.result()
    if failure is None and not action.lied and action.command in _EFFECTS:
        failure = _take_effect(cloud, action)
    if action.hung_at is not None:
        return
    action.finished = now
    action.status = "success" if failure is None else "error"
    action.error = failure


def _take_effect(cloud: Cloud, action: Action) -> dict[str, str] | None:
    try:
        _EFFECTS[action.command](cloud, action)
    except ActionFailed as failed:
        return {"code": "action_failed", "message": str(failed)}
    return None


def _failure(task: asyncio.Task[Any] | None) -> dict[str, str] | None:
    if task is None:
        return None
    if task.cancelled():
        return {"code": "action_failed", "message": "The stand-in was stopped meanwhile"}
    error = task.exception()
    if error is None:
        return None
    if not isinstance(error, MachineHostError | TimeoutError):
        raise error
    return {"code": "action_failed", "message": f"The machine host failed: {error}"}


def _forget_old(cloud: Cloud) -> None:
    excess = len(cloud.actions) - ACTIONS_KEPT_MAX
    if excess > 0:
        ended = (action.id for action in cloud.actions.values() if action.settled)
        for action_id in list(itertools.islice(ended, excess)):
            del cloud.actions[action_id]


def progress(cloud: Cloud, action: Action) -> int:
    if action.status != "running":
        return 100
    if action.hung_at is not None:
        return action.hung_at
    share = (cloud.clock() - action.started) / max(action.due - action.started, 1e-9)
    return max(0, min(PROGRESS_MAX, int(100 * share)))
