"""A profile at work: its own plugins, set up as it says, over what all profiles know of nodes and pods together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from knarr.api.core.v1 import Pod
from knarr.api.selectors import Selector
from knarr.client.events import EventRecorder
from knarr.clock import Clock
from knarr.figures import Distribution, exponential
from knarr.scheduler.cache import Cache
from knarr.scheduler.choice import Choice
from knarr.scheduler.configuration import DEFAULT_NAME, Profile
from knarr.scheduler.extenders import Extender
from knarr.scheduler.framework import POINTS, PREEMPTION, Aspect, Outside, Step
from knarr.scheduler.plugins.inter_pod_affinity import InterPodAffinity
from knarr.scheduler.plugins.resources_fit import ResourcesFit
from knarr.scheduler.plugins.topology_spread import TopologySpread
from knarr.scheduler.preemption import Preemption

ATTEMPT_BOUNDS_S = exponential(0.001, 2, 15)


def profile_of(pod: Pod) -> str:
    """The name of the profile that a pod wants."""
    return (pod.spec.scheduler_name if pod.spec else None) or DEFAULT_NAME


class Framework:
    """Chooses nodes for the pods of one profile, and who gives way to them; its events come from it by name."""

    def __init__(
        self,
        profile: Profile,
        cache: Cache,
        kinds: Sequence[type[Aspect]],
        steps: Mapping[str, Step],
        events: EventRecorder,
        clock: Clock,
        extenders: Sequence[Extender],
        *,
        group_of: Callable[[Pod], Selector | None],
        labels_of: Callable[[str], Mapping[str, str]],
    ) -> None:
        self.events = events
        self.extenders = extenders
        self.attempts = {result: Distribution(ATTEMPT_BOUNDS_S) for result in ("error", "scheduled", "unschedulable")}
        """How long the choices took, by how they ended."""
        self.affinity = InterPodAffinity(cache)
        self.affinity.labels_of = labels_of
        self.affinity.hard_affinity_weight = profile.hard_affinity_weight
        self.spread = TopologySpread(cache)
        self.spread.group_of = group_of
        self.spread.default_constraints = profile.default_constraints
        made: dict[type[Aspect], Aspect] = {InterPodAffinity: self.affinity, TopologySpread: self.spread}
        plugins: dict[str, Aspect] = {}
        for kind in kinds:
            if issubclass(kind, Step):
                continue
            plugin = plugins[kind.name] = made.get(kind) or kind(cache)
            plugin.filters = kind.name in profile.points["preFilter"] and kind.name in profile.points["filter"]
            plugin.weight = profile.weights.get(kind.name, 0) if kind.name in profile.points["preScore"] else 0
            if isinstance(plugin, ResourcesFit):
                plugin.strategy = profile.fit
                plugin.ignored, plugin.ignored_groups = profile.ignored, profile.ignored_groups
        self.at = {point: [steps[name] for name in profile.points[point] if name in steps] for point in POINTS}
        """The steps at each point. What is kept for a pod is kept from the pods of all profiles: they are shared."""
        looking = [
            steps[name] for name in profile.points["filter"] if name in profile.points["preFilter"] and name in steps
        ]
        ranks = {name: rank for rank, name in enumerate(profile.points["filter"])}
        plugins |= {each.name: each for each in looking if isinstance(each, Outside)}
        self.plugins: Mapping[str, Aspect] = {**steps, **plugins}
        """All that can refuse a pod, by name."""
        ordered = sorted(plugins.values(), key=lambda plugin: ranks.get(plugin.name, len(ranks)))
        self.choice = Choice(cache, ordered, clock.random, profile.nodes_percent)
        self.preemption = (
            Preemption(cache, self.choice, clock.random) if PREEMPTION in profile.points["postFilter"] else None
        )
