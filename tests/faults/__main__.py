"""`python -m tests.faults`: kill everything under load; prove that nothing is lost, nothing answered twice, order kept.

    --short            the short form of all (the default), under 10 minutes
    --count N          so many kills of the control plane, and more of the others
    --seed S           repeat the random choices of an earlier run (the machine's own timing stays its own)
    --only SCENARIO    control, first, database, host, box, runtime, smarthost, two or frozen

Exit code 0 only if every claim held.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import shutil
import sys
import tempfile
import time
import traceback
from dataclasses import dataclass
from pathlib import Path

from tests.faults import scenarios
from tests.faults.claims import Verdict
from tests.faults.rig import Rig
from tests.faults.two import frozen, two

CONTROL_SHORT = 25


@dataclass(frozen=True, slots=True)
class Plan:
    name: str
    scenario: scenarios.Scenario
    count_short: int
    share: float  # of --count
    slow: float = 0.2  # the share of mails whose turn takes a while
    pace: float = 0.5  # seconds between two mails of one conversation
    talk: int = 25  # mails of one conversation


@dataclass(frozen=True, slots=True)
class Result:
    name: str
    rig: Rig
    verdict: Verdict | None
    trouble: str
    seconds: float

    @property
    def held(self) -> bool:
        return self.verdict is not None and not self.verdict.complaints


PLANS = (
    Plan("control", scenarios.control, CONTROL_SHORT, 1.0, pace=0.3),
    Plan("first", scenarios.first, 3, 0.05),
    Plan("database", scenarios.database, 8, 0.1),
    Plan("host", scenarios.host, 4, 0.1, slow=0.4),
    Plan("box", scenarios.box, 6, 0.1, slow=0.6),
    Plan("runtime", scenarios.runtime, 6, 0.1, slow=0.6),
    Plan("smarthost", scenarios.smarthost, 1, 0.02, talk=3),
    Plan("two", two, 1, 0.01, pace=1.5),
    Plan("frozen", frozen, 1, 0.01, pace=1.5),
)


async def run(plan: Plan, count: int, seed: int, folder: Path) -> Result:
    began = time.monotonic()
    rig = Rig(plan.name, folder / plan.name, seed, slow=plan.slow, pace=plan.pace, talk=plan.talk)
    verdict, trouble = None, ""
    try:
        async with rig:
            rig.say((plan.scenario.__doc__ or "").split("\n", 1)[0])
            verdict = await plan.scenario(rig, count)
    except Exception:
        trouble = traceback.format_exc()
    return Result(plan.name, rig, verdict, trouble, time.monotonic() - began)


def show(results: list[Result]) -> None:
    head = ("scenario", "faults", "mails", "threads", "bad news", "resent to us", "250s lost", "same mail again", "s")
    rows: list[tuple[str, ...]] = [head]
    for one in results:
        figures, verdict = one.rig.sender.figures, one.verdict
        mails = verdict.mails if verdict else one.rig.sender.accepted
        rest = (verdict.conversations, verdict.bad_news) if verdict else ("?", "?")
        again = verdict.repeats if verdict else "?"
        numbers = (one.rig.faults, mails, *rest, figures.deferred, figures.answers_lost, again, round(one.seconds))
        rows.append((one.name, *(str(number) for number in numbers)))
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    print()
    for row, verdict_word in zip(rows, ["", *("held" if one.held else "BROKEN" for one in results)], strict=True):
        print("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)), "", verdict_word)


def explain(result: Result, count: int, seed: int, folder: Path) -> None:
    print(f"\n{result.name}:")
    for line in result.verdict.complaints if result.verdict else [result.trouble]:
        print(f"  {line}")
    print(f"  logs and homes: {folder / result.name}")
    print(f"  again: python -m tests.faults --only {result.name} --count {count} --seed {seed}")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__, add_help=True,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--short", action="store_true", help="the short form (the default)")
    size.add_argument("--count", type=int, default=0, metavar="N", help="kills of the control plane")
    parser.add_argument("--seed", type=int, default=random.randrange(1, 10**6))
    parser.add_argument("--only", choices=[plan.name for plan in PLANS])
    return parser.parse_args()


async def main() -> int:
    given = arguments()
    print(f"seed {given.seed}", flush=True)
    folder = Path(tempfile.mkdtemp(prefix="tinyfat-faults-"))
    counts = {
        plan.name: max(plan.count_short if plan.share < 1 else 1, round(given.count * plan.share))
        if given.count
        else plan.count_short
        for plan in PLANS
    }
    plans = [plan for plan in PLANS if given.only in (None, plan.name)]
    results = [await run(plan, counts[plan.name], given.seed, folder) for plan in plans]
    show(results)
    broken = [result for result in results if not result.held]
    for result in broken:
        explain(result, given.count or CONTROL_SHORT, given.seed, folder)
    if not broken:
        shutil.rmtree(folder, ignore_errors=True)
        print("\nnothing lost, nothing answered twice, order kept")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
