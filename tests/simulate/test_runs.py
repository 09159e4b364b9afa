"""Thousands of seeded runs of the whole control plane in bad weather: after every write the invariants hold.

A seed that fails is named with what is broken; `make simulate SEED=…` replays it with all that happens in it.
"""

from __future__ import annotations

import pytest

from tests.simulate.campaign import campaign
from tests.simulate.runs import play

RUNS = 2000
FAILURES_SHOWN = 5


@pytest.mark.timeout(3600)
def test_invariants_hold_after_every_write_and_all_runs_end_as_declared() -> None:
    broken: list[str] = []
    for outcomes in campaign(0, RUNS):
        broken += [str(outcome) for outcome in outcomes if outcome.broken]
        if len(broken) >= FAILURES_SHOWN:
            break
    assert not broken, "\n".join(broken)


@pytest.mark.parametrize("seed", [1, 2, 5, 8])
def test_a_seed_replays_write_by_write(seed: int) -> None:
    assert play(seed, trace=True).trace == play(seed, trace=True).trace
