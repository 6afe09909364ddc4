"""Which runtime a spec means. Each is imported only when it is asked for: a box stays small."""

from __future__ import annotations

from tinyfat.box.runtime import Places, Runtime
from tinyfat.domain.agents import RuntimeKind
from tinyfat.domain.link import RuntimeSpec


class UnknownRuntime(ValueError):
    """This box does not know the runtime it should run."""


def make_runtime(spec: RuntimeSpec, places: Places) -> Runtime:
    """Raises UnknownRuntime."""
    match spec.kind:
        case RuntimeKind.OPENCLAW:
            from tinyfat.box.runtimes.openclaw import OpenClawRuntime

            return OpenClawRuntime(spec, places)
        case RuntimeKind.PI:
            from tinyfat.box.runtimes.pi import PiRuntime

            return PiRuntime(spec, places)
        case RuntimeKind.ECHO:
            from tinyfat.box.runtimes.echo import EchoRuntime

            return EchoRuntime(spec, places)
        case _:
            known = ", ".join(RuntimeKind)
            raise UnknownRuntime(
                f"agent {spec.agent_name}: this box knows no runtime {spec.kind!r}, only {known}; update the box."
            )
