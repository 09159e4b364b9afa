"""`make simulate`: many seeded runs on all cores, or one of them alone with all that happens in it.

python -m tests.simulate --seeds 1000000 [--from 0]
python -m tests.simulate --seed 4711

With `--only CronJob` all runs are of that story alone.
"""

from __future__ import annotations

import argparse
import logging
import sys
import time

from tests.simulate.campaign import campaign
from tests.simulate.runs import BY_NAME, play

TOLD_EVERY_S = 5.0


def main() -> int:
    parser = argparse.ArgumentParser(prog="simulate", description=__doc__)
    parser.add_argument("--seeds", type=int, default=2000, help="how many runs")
    parser.add_argument("--from", dest="first", type=int, default=0, help="the first seed")
    parser.add_argument("--seed", type=int, help="play this one alone, and show what happens")
    parser.add_argument("--only", default="", choices=sorted(BY_NAME), help="only runs of this story")
    parser.add_argument("--failures", type=int, default=1, help="stop after so many failing seeds")
    arguments = parser.parse_args()
    if arguments.seed is not None:
        return one(arguments.seed, arguments.only)
    logging.disable(logging.CRITICAL)
    return many(arguments.first, arguments.seeds, arguments.failures, arguments.only)


def one(seed: int, only: str) -> int:
    logging.basicConfig(level=logging.WARNING, format="         %(name)s: %(message)s")
    outcome = play(seed, only, trace=True)
    print("\n".join(outcome.trace))
    print(outcome)
    return 1 if outcome.broken else 0


def many(first: int, count: int, failures_max: int, only: str) -> int:
    arguments = f' ARGS="--only {only}"' if only else ""
    began_s = told_s = time.monotonic()
    played = writes = crashes = failures = 0
    for outcomes in campaign(first, count, only):
        for outcome in outcomes:
            played, writes, crashes = played + 1, writes + outcome.writes, crashes + outcome.crashes
            if outcome.broken:
                failures += 1
                print(f"{outcome}\n    replay: make simulate SEED={outcome.seed}{arguments}", flush=True)
        now_s = time.monotonic()
        if now_s - told_s > TOLD_EVERY_S:
            told_s = now_s
            rate = played / (now_s - began_s)
            print(
                f"{played:,} of {count:,} runs, {writes:,} writes checked, {crashes:,} crashes, {rate:.0f} runs/s",
                flush=True,
            )
        if failures >= failures_max:
            break
    took_s = time.monotonic() - began_s
    print(f"{played:,} runs, {writes:,} writes checked, {crashes:,} crashes, {failures} failures, {took_s:.0f} s")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
