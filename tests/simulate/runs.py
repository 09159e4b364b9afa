"""One seeded run: its cluster, its weather and its stories come from the seed alone, and so does all that happens.

First the weather is bad while users do what they do; then it clears, lost nodes return, and the cluster has to come to
rest in the state that was declared. After every single write the invariants are checked.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import random
from dataclasses import dataclass, field

from knarr.simulate.clock import Stalled, VirtualClock, run
from knarr.simulate.faults import CALM, Odds
from knarr.simulate.nodes import Ending, Faults
from tests.simulate.rules import Broken, Invariants, Past
from tests.simulate.rules.rule import AT_ONCE_S
from tests.simulate.stories import STORIES
from tests.simulate.stories.story import BAD, Story
from tests.simulate.world import Change, World

WEATHERS: tuple[tuple[str, Odds, float], ...] = (
    ("calm", CALM, 1.5),
    ("refusing", Odds(refused=0.08, conflict=0.05, slow=0.1), 6.0),
    ("stale", Odds(late=0.15, dropped=0.02, expired=0.01, repeated=0.05), 14.0),
    ("losing", Odds(refused=0.03, lost=0.06, conflict=0.03, slow=0.1), 10.0),
    ("forgetful", Odds(late=0.15, lost=0.15, slow=0.1), 14.0),
    ("crashing", Odds(crash=0.03, slow=0.05), 10.0),
    (
        "storm",
        Odds(0.03, 0.03, 0.03, 0.1, crash=0.015, late=0.05, dropped=0.02, expired=0.01, repeated=0.03),
        16.0,
    ),
)
"""Name, odds, and how old what a loop decides by may be in it."""
NODES_LOST = 0.12
"""So many of the runs lose a node for some time."""
COLLECTOR_APART = 0.4
"""So many have a garbage collector with caches of its own."""
LOST_S = 75.0
"""Longer than it takes until its silence is noticed."""
SETTLE_MAX_S = 400.0
REST_S = 8.0
"""Without a write for so long, the cluster is at rest."""
STEP_S = 1.0
TRACE_MAX = 100_000
WRITES_MAX = 5_000
"""Loops that work against each other write without end; a run has some hundred writes."""


@dataclass(slots=True)
class Outcome:
    """How a run went."""

    seed: int
    weather: str
    stories: list[str]
    broken: list[str] = field(default_factory=list)
    writes: int = 0
    crashes: int = 0
    virtual_s: float = 0.0
    trace: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        about = f"seed {self.seed} ({self.weather}; {', '.join(self.stories)}; {self.writes} writes, "
        about += f"{self.crashes} crashes, {self.virtual_s:.0f} virtual seconds)"
        return f"{about}: {self.broken[0] if self.broken else 'well'}"


def play(seed: int, only: str = "", *, trace: bool = False) -> Outcome:
    """Play the run of a seed; with `only` it is about one story, by its name."""
    outcome = Outcome(seed, "", [])

    async def main(clock: VirtualClock) -> None:
        await _Run(clock, outcome, trace, only).play()

    collecting = gc.isenabled()
    gc.disable()
    try:
        run(main, seed)
    except Stalled as stalled:
        outcome.broken.append(f"stalled: {stalled}")
    except Exception as error:
        logging.getLogger("tests.simulate").exception("seed %d ended", seed)
        outcome.broken.append(f"the run ended: {error!r}")
    finally:
        if collecting:
            gc.enable()
    return outcome


class _Run:
    def __init__(self, clock: VirtualClock, outcome: Outcome, trace: bool, only: str) -> None:
        self.clock = clock
        self.outcome = outcome
        self.trace = trace
        chance = random.Random(clock.random.getrandbits(64))
        outcome.weather, odds, slack_s = chance.choice(WEATHERS)
        kinds = _kinds(chance, only)
        self.loses_node = chance.random() < NODES_LOST
        self.faults = Faults(
            crashing_images={BAD[0]},
            unready_images={BAD[1]},
            missing_images={BAD[2]},
            endings={
                "works": Ending(after_s=(0.5, 4.0)),
                "flaky": Ending(failing=0.3, after_s=(0.5, 4.0)),
                "fails": Ending(failing=1.0, after_s=(0.5, 4.0)),
                "lasts": Ending(failing=0.3, after_s=(30.0, 100.0)),
            },
        )
        self.world = World(
            clock,
            {kind for story in kinds for kind in story.kinds},
            odds,
            nodes=chance.randint(2, 3),
            collector_apart=chance.random() < COLLECTOR_APART,
            watch=self._watch,
            start_s=chance.choice(((0.0, 0.0), (0.1, 2.0), (0.5, 4.0))),
            stop_s=chance.choice(((0.0, 0.0), (0.1, 2.0), (0.5, 4.0))),
            heartbeat_s=20.0,
            capacity={"cpu": chance.choice(("1", "700m", "4")), "memory": "1Gi", "pods": "20"},
            faults=self.faults,
        )
        self.stories: list[Story] = [
            kind(self.world, random.Random(chance.getrandbits(64)), f"s{number}") for number, kind in enumerate(kinds)
        ]
        outcome.stories = [_name(type(story)) for story in self.stories]
        self.chance = chance
        flight_s = 2.0 if odds.slow or odds.uncertain else AT_ONCE_S
        way_s = AT_ONCE_S + (odds.slow_max_s if odds.slow else 0.0)
        crashed_s = self.world.crashed_s
        past = Past(slack_s, flight_s, way_s, not odds.uncertain, prompt=not odds.late, crashed_s=crashed_s)
        self.invariants = Invariants(self.world.state, past)

    async def play(self) -> None:
        try:
            await self.world.run(self._scenario)
        finally:
            self.outcome.broken = self.world.broken
            self.outcome.crashes = self.world.crashes
            self.outcome.virtual_s = self.clock.monotonic_s()
            if self.trace:
                self.outcome.trace += [line for story in self.stories for line in story.log]
                self.outcome.trace.sort(key=lambda line: float(line.split()[0]))

    async def _scenario(self, world: World) -> None:
        playing = [asyncio.ensure_future(story.play()) for story in self.stories]
        if self.loses_node:
            playing.append(asyncio.ensure_future(self._lose_node()))
        try:
            pending = set(playing)
            while pending and not world.broken:
                _, pending = await asyncio.wait(pending, timeout=STEP_S)
        finally:
            for task in playing:
                task.cancel()
            ended = await asyncio.gather(*playing, return_exceptions=True)
        for error in ended:
            if isinstance(error, Exception):
                world.broken.append(f"a user could not go on: {error!r}")
        world.weather.odds = CALM
        for images in (self.faults.crashing_images, self.faults.unready_images, self.faults.missing_images):
            images.clear()
        # Each further failure would make a Job wait twice as long.
        self.faults.endings["flaky"] = self.faults.endings["works"]
        world.nodes.look_again()
        await self._settle(world)

    async def _lose_node(self) -> None:
        await self.clock.sleep(self.chance.uniform(1, 10))
        name = self.chance.choice(self.world.nodes.names)
        self.faults.silent_nodes.add(name)
        await self.clock.sleep(LOST_S)
        self.faults.silent_nodes.discard(name)
        self.world.nodes.look_again()

    async def _settle(self, world: World) -> None:
        """Until all is as declared, and nothing is written any more."""
        until_s = self.clock.monotonic_s() + SETTLE_MAX_S
        while not world.broken:
            wrong = [what for story in self.stories for what in story.wrong()]
            now_s = self.clock.monotonic_s()
            if not wrong and now_s - world.last_write_s > REST_S:
                return
            if now_s > until_s:
                if wrong:
                    world.broken.append(f"at the end: {'; '.join(wrong)}")
                else:
                    world.broken.append("at the end: it does not come to rest")
                return
            await self.clock.sleep(STEP_S)

    def _watch(self, change: Change) -> None:
        self.outcome.writes += 1
        if self.outcome.writes == WRITES_MAX:
            self.world.broken.append(f"{change}: {WRITES_MAX} writes, and no end")
            self.world.store.is_full = True
        if self.trace and len(self.outcome.trace) < TRACE_MAX:
            self.outcome.trace.append(_line(change))
        try:
            self.invariants.check(change)
        except Broken as broken:
            self.world.broken.append(f"{change}: {broken}")
            if self.trace:
                self.outcome.trace.append(f"{change.now_s:8.3f} BROKEN: {broken}")
        except Exception as error:
            logging.getLogger("tests.simulate").exception("a rule failed")
            self.world.broken.append(f"{change}: a rule failed: {error!r}")


def _kinds(chance: random.Random, only: str) -> list[type[Story]]:
    kinds = chance.sample(STORIES, chance.choice((1, 1, 1, 2)))
    if only:
        return [BY_NAME[only]]
    alone = [kind for kind in kinds if kind.alone]
    return alone[:1] or kinds


def _name(story: type[Story]) -> str:
    return story.__name__.removesuffix("Story")


BY_NAME = {_name(story): story for story in STORIES}


def _line(change: Change) -> str:
    """A change, and what of it a reader wants to see."""
    obj = change.new or change.old
    told = []
    for name in ("replicas", "paused", "node_name", "parallelism"):
        value = getattr(getattr(obj, "spec", None), name, None)
        if value is not None:
            told.append(f"{name}={value}")
    status = getattr(obj, "status", None)
    for name in ("phase", "available_replicas", "active", "succeeded", "failed", "disruptions_allowed"):
        value = getattr(status, name, None)
        if value is not None:
            told.append(f"{name}={value}")
    if obj.metadata.deletion_timestamp is not None:
        told.append("going")
    if obj.metadata.finalizers:
        told.append(f"finalizers={','.join(obj.metadata.finalizers)}")
    return f"{change} {' '.join(told)}"
