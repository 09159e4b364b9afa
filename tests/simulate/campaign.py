"""Many runs at once: batches of seeds on all cores, in the order of the seeds."""

from __future__ import annotations

import logging
import multiprocessing
import os
from collections.abc import Iterator

from tests.simulate.runs import Outcome, play

BATCH = 10


def campaign(first: int, count: int, only: str = "") -> Iterator[list[Outcome]]:
    """The outcomes of the seeds from `first` on; what is known so far as soon as it is known."""
    starts = range(first, first + count, BATCH)
    batches = ((start, min(start + BATCH, first + count), only) for start in starts)
    with multiprocessing.get_context("spawn").Pool(os.cpu_count(), initializer=_quiet) as pool:
        yield from pool.imap(_batch, batches)


def _quiet() -> None:
    """What goes wrong in a run is meant to; rules tell what isn't."""
    logging.disable(logging.CRITICAL)


def _batch(seeds: tuple[int, int, str]) -> list[Outcome]:
    first, end, only = seeds
    return [play(seed, only) for seed in range(first, end)]
