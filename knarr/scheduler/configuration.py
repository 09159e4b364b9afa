"""The file that sets up the scheduler: upstream's KubeSchedulerConfiguration (kubescheduler.config.k8s.io/v1).

    apiVersion: kubescheduler.config.k8s.io/v1
    kind: KubeSchedulerConfiguration
    profiles:
    - schedulerName: default-scheduler
    - schedulerName: packing                     # for pods that name it
      plugins:
        score: {disabled: [{name: PodTopologySpread}], enabled: [{name: NodeResourcesFit, weight: 5}]}
      pluginConfig:
      - name: NodeResourcesFit
        args: {scoringStrategy: {type: MostAllocated, resources: [{name: cpu, weight: 1}]}}

Plugins are enabled and disabled at upstream's extension points, or at all of them that a plugin has (multiPoint), and
are asked in the order in which they are enabled. What isn't known is refused at start.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec

from knarr.api.core.v1 import TopologySpreadConstraint
from knarr.scheduler.framework import POINTS, PREEMPTION, SCORE_MAX, Aspect, extends
from knarr.scheduler.http_extender import ExtenderConfig, extender_problems
from knarr.scheduler.plugins import ALL
from knarr.scheduler.plugins.resources_fit import Strategy

FILE_BYTES_MAX = 1 << 20
PROFILES_MAX = 64
WEIGHT_MAX = 100
SHAPE_SCORE_MAX = 10
VERSION = "kubescheduler.config.k8s.io/v1"
DEFAULT_NAME = "default-scheduler"
EVERY = "*"

Kinds = Sequence[type[Aspect]]


def points_of(kinds: Kinds) -> dict[str, tuple[str, ...]]:
    """The plugins at each point, when nothing is said of it."""
    found = {point: tuple(kind.name for kind in kinds if extends(kind, point)) for point in POINTS}
    return found | {"postFilter": (PREEMPTION,)}


class Profile(msgspec.Struct, frozen=True):
    """How pods of one `schedulerName` are placed."""

    name: str = DEFAULT_NAME
    points: Mapping[str, Sequence[str]] = msgspec.field(default_factory=lambda: points_of(ALL))
    """The plugins at each extension point, in their order."""
    weights: Mapping[str, int] = msgspec.field(
        default_factory=lambda: {plugin.name: plugin.weight for plugin in ALL if plugin.weight}
    )
    """Of the plugins that score."""
    nodes_percent: int = 0
    """Feasible nodes that are enough, in percent; 0: as many as the size of the cluster says."""
    fit: Strategy = msgspec.field(default_factory=Strategy)
    ignored: frozenset[str] = frozenset()
    ignored_groups: frozenset[str] = frozenset()
    hard_affinity_weight: int = 1
    default_constraints: Sequence[TopologySpreadConstraint] | None = None
    """In place of the built-in ones."""
    extenders: Sequence[ExtenderConfig] = ()
    """The same for all profiles."""


class SchedulerConfigError(Exception):
    """A configuration that can't be used; `problems` says what is wrong."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


class _Strict(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    pass


class _Plugin(_Strict):
    name: str
    weight: int = 0


class _Point(_Strict):
    enabled: list[_Plugin] = []
    disabled: list[_Plugin] = []


_Plugins = msgspec.defstruct(
    "_Plugins",
    [(point, _Point, msgspec.field(default_factory=_Point)) for point in ("multiPoint", *POINTS)],
    forbid_unknown_fields=True,
)
"""What is said of each extension point."""


class _Resource(_Strict):
    name: str
    weight: int = 1


class _ShapePoint(_Strict):
    utilization: int
    score: int


class _Ratio(_Strict):
    shape: list[_ShapePoint] = []


class _Strategy(_Strict):
    type: Literal["LeastAllocated", "MostAllocated", "RequestedToCapacityRatio"] = "LeastAllocated"
    resources: list[_Resource] = []
    requested_to_capacity_ratio: _Ratio = msgspec.field(default_factory=_Ratio)


class _FitArgs(_Strict):
    api_version: str = VERSION
    kind: str = "NodeResourcesFitArgs"
    ignored_resources: list[str] = []
    ignored_resource_groups: list[str] = []
    scoring_strategy: _Strategy = msgspec.field(default_factory=_Strategy)


class _AffinityArgs(_Strict):
    api_version: str = VERSION
    kind: str = "InterPodAffinityArgs"
    hard_pod_affinity_weight: int = 1


class _SpreadArgs(_Strict):
    api_version: str = VERSION
    kind: str = "PodTopologySpreadArgs"
    default_constraints: list[TopologySpreadConstraint] = []
    defaulting_type: Literal["System", "List"] = "System"


class _PluginConfig(_Strict):
    name: str
    args: Any = {}


class _Profile(_Strict):
    scheduler_name: str = DEFAULT_NAME
    percentage_of_nodes_to_score: int | None = None
    plugins: _Plugins = msgspec.field(default_factory=_Plugins)  # type: ignore[valid-type]
    plugin_config: list[_PluginConfig] = []


class _Configuration(_Strict):
    api_version: str
    kind: str
    percentage_of_nodes_to_score: int = 0
    extenders: list[ExtenderConfig] = []
    profiles: list[_Profile] = msgspec.field(default_factory=lambda: [_Profile()])


ARGS: Mapping[str, type[_FitArgs] | type[_AffinityArgs] | type[_SpreadArgs]] = {
    "NodeResourcesFit": _FitArgs,
    "InterPodAffinity": _AffinityArgs,
    "PodTopologySpread": _SpreadArgs,
}


def read_scheduler_config(path: Path, kinds: Kinds = ALL) -> list[Profile]:
    """Raises SchedulerConfigError. `kinds` are the plugins that there are; those in ALL are enabled by default."""
    import yaml  # only who configures the scheduler pays for it

    try:
        content = path.read_bytes()
    except OSError as error:
        raise SchedulerConfigError([f"{path}: {error.strerror}"]) from None
    if len(content) > FILE_BYTES_MAX:
        raise SchedulerConfigError([f"{path}: larger than {FILE_BYTES_MAX} bytes"])
    try:
        return profiles_of(yaml.safe_load(content), kinds)
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: a date that is none
        raise SchedulerConfigError([f"{path}: not YAML: {error}"]) from None
    except SchedulerConfigError as error:
        raise SchedulerConfigError([f"{path}: {problem}" for problem in error.problems]) from None


def profiles_of(written: Any, kinds: Kinds = ALL) -> list[Profile]:
    """Raises SchedulerConfigError."""
    try:
        found = msgspec.convert(written, _Configuration)
        args = [_args_of(profile) for profile in found.profiles]
    except msgspec.ValidationError as error:
        raise SchedulerConfigError([str(error)]) from None
    problems = list(_problems(found))
    for number, (profile, each) in enumerate(zip(found.profiles, args, strict=True)):
        place = f"profiles[{number}]"
        problems += (f"{place}.{problem}" for problem in _plugins_problems(profile.plugins, kinds))
        problems += (f"{place}.pluginConfig.{problem}" for problem in _args_problems(each))
    if problems:
        raise SchedulerConfigError(problems)
    profiles = [_profile(each, found, of, kinds) for each, of in zip(found.profiles, args, strict=True)]
    problems = list(_lacks(profiles))
    if problems:
        raise SchedulerConfigError(problems)
    return profiles


def _args_of(profile: _Profile) -> dict[str, Any]:
    args: dict[str, Any] = {name: kind() for name, kind in ARGS.items()}
    for config in profile.plugin_config:
        if config.name not in ARGS:
            raise msgspec.ValidationError(f"pluginConfig: {config.name} takes no args here")
        args[config.name] = msgspec.convert(config.args, ARGS[config.name])
    return args


def _problems(found: _Configuration) -> Iterator[str]:
    if found.api_version != VERSION or found.kind != "KubeSchedulerConfiguration":
        yield f"must be a KubeSchedulerConfiguration of {VERSION}"
    if not 1 <= len(found.profiles) <= PROFILES_MAX:
        yield f"profiles: must have 1 to {PROFILES_MAX} items"
    if not 0 <= found.percentage_of_nodes_to_score <= 100:
        yield "percentageOfNodesToScore: not in valid range [0-100]"
    yield from extender_problems(found.extenders)
    names = [profile.scheduler_name for profile in found.profiles]
    for number, profile in enumerate(found.profiles):
        place = f"profiles[{number}]"
        if not profile.scheduler_name:
            yield f"{place}.schedulerName: Required value"
        if profile.scheduler_name in names[:number]:
            yield f'{place}.schedulerName: Duplicate value: "{profile.scheduler_name}"'
        if not 0 <= (profile.percentage_of_nodes_to_score or 0) <= 100:
            yield f"{place}.percentageOfNodesToScore: not in valid range [0-100]"


def _plugins_problems(plugins: Any, kinds: Kinds) -> Iterator[str]:
    there = points_of(kinds)
    known = {PREEMPTION, *(kind.name for kind in kinds)}
    for point, names in {"multiPoint": tuple(known), **there}.items():
        said: _Point = getattr(plugins, point)
        for each in (*said.enabled, *said.disabled):
            place = f"plugins.{point}"
            if each.name not in known and not (each.name == EVERY and each in said.disabled):
                yield f'{place}: Invalid value: "{each.name}": no such plugin'
            elif each in said.enabled and each.name not in names:
                yield f'{place}: Invalid value: "{each.name}": plugin "{each.name}" does not extend {point}'
            if not 0 <= each.weight <= WEIGHT_MAX:
                yield f"{place}: weight of {each.name}: not in valid range [0-{WEIGHT_MAX}]"
        enabled = [each.name for each in said.enabled]
        for name in sorted({name for name in enabled if enabled.count(name) > 1}):
            yield f'plugins.{point}: Duplicate value: "{name}"'


def _lacks(profiles: Sequence[Profile]) -> Iterator[str]:
    """What no profile can do without."""
    for number, profile in enumerate(profiles):
        place = f'profiles[{number}].plugins: profile with scheduler name "{profile.name}"'
        if len(profile.points["queueSort"]) != 1:
            yield f"{place} needs exactly one queue sort plugin"
        elif profile.points["queueSort"] != profiles[0].points["queueSort"]:
            yield f"{place}: all profiles must have the same queue sort plugin: they share a queue"
        if not profile.points["bind"]:
            yield f"{place} needs at least one bind plugin"


def _args_problems(args: Mapping[str, Any]) -> Iterator[str]:
    if not 0 <= args["InterPodAffinity"].hard_pod_affinity_weight <= 100:
        yield "InterPodAffinity.hardPodAffinityWeight: not in valid range [0-100]"
    spread = args["PodTopologySpread"]
    if spread.defaulting_type == "System" and spread.default_constraints:
        yield "PodTopologySpread.defaultConstraints: when .defaultingType is System, must be empty"
    for number, constraint in enumerate(spread.default_constraints):
        place = f"PodTopologySpread.defaultConstraints[{number}]"
        if constraint.label_selector is not None:
            yield f"{place}.labelSelector: constraint must not define a selector, as they deduced for each pod"
        if constraint.when_unsatisfiable != "ScheduleAnyway":
            yield f"{place}.whenUnsatisfiable: must be ScheduleAnyway"
        if constraint.max_skew < 1:
            yield f"{place}.maxSkew: not in valid range (0-inf)"
        if not constraint.topology_key:
            yield f"{place}.topologyKey: can not be empty"
    strategy = args["NodeResourcesFit"].scoring_strategy
    for number, resource in enumerate(strategy.resources):
        if not 1 <= resource.weight <= WEIGHT_MAX:
            yield f"NodeResourcesFit.scoringStrategy.resources[{number}].weight: not in valid range [1-{WEIGHT_MAX}]"
    if strategy.type == "RequestedToCapacityRatio":
        yield from _shape_problems(strategy.requested_to_capacity_ratio.shape)


def _shape_problems(shape: Sequence[_ShapePoint]) -> Iterator[str]:
    place = "NodeResourcesFit.scoringStrategy.requestedToCapacityRatio.shape"
    if not shape:
        yield f"{place}: Required value: at least one point must be specified"
    for number, point in enumerate(shape):
        if not 0 <= point.utilization <= 100:
            yield f"{place}[{number}].utilization: not in valid range [0-100]"
        if not 0 <= point.score <= SHAPE_SCORE_MAX:
            yield f"{place}[{number}].score: not in valid range [0-{SHAPE_SCORE_MAX}]"
        if number and point.utilization <= shape[number - 1].utilization:
            yield f"{place}[{number}].utilization: utilization values must be sorted in increasing order"


def _profile(written: _Profile, whole: _Configuration, args: Mapping[str, Any], kinds: Kinds) -> Profile:
    plugins: Any = written.plugins
    default = Profile()
    fit, spread = args["NodeResourcesFit"], args["PodTopologySpread"]
    strategy = fit.scoring_strategy
    shape = strategy.requested_to_capacity_ratio.shape
    percent = written.percentage_of_nodes_to_score
    points = _points(written.plugins, kinds)
    weights = {kind.name: kind.weight for kind in kinds}
    weights |= {each.name: each.weight for each in (*plugins.multiPoint.enabled, *plugins.score.enabled) if each.weight}
    return Profile(
        name=written.scheduler_name,
        points=points,
        weights={name: weights[name] for name in points["score"]},
        nodes_percent=whole.percentage_of_nodes_to_score if percent is None else percent,
        fit=Strategy(
            strategy.type,
            {each.name: each.weight for each in strategy.resources} or default.fit.resources,
            tuple((point.utilization, point.score * (SCORE_MAX // SHAPE_SCORE_MAX)) for point in shape),
        ),
        ignored=frozenset((*fit.ignored_resources, *(name for each in whole.extenders for name in each.ignored))),
        ignored_groups=frozenset(fit.ignored_resource_groups),
        hard_affinity_weight=args["InterPodAffinity"].hard_pod_affinity_weight,
        default_constraints=tuple(spread.default_constraints) if spread.defaulting_type == "List" else None,
        extenders=tuple(whole.extenders),
    )


def _points(plugins: Any, kinds: Kinds) -> dict[str, tuple[str, ...]]:
    """The plugins at each point: those that its own list names and the rest of multiPoint, the reordered ones first."""
    there = points_of(kinds)
    everywhere = _merged([PREEMPTION, *(kind.name for kind in ALL)], plugins.multiPoint)
    points = {}
    for point in POINTS:
        said: _Point = getattr(plugins, point)
        disabled = {each.name for each in said.disabled}
        common = [name for name in everywhere if name in there[point] and not disabled & {name, EVERY}]
        own = [each.name for each in said.enabled]
        first = [name for name in own if name in common]
        rest = [name for name in common if name not in first]
        points[point] = (*first, *rest, *(name for name in own if name not in first))
    for before, point in (("preFilter", "filter"), ("preScore", "score")):  # a plugin prepares what it is asked for
        disabled = {each.name for each in getattr(plugins, before).disabled}
        more = [each.name for each in getattr(plugins, point).enabled if each.name not in {*disabled, *points[before]}]
        points[before] = (*points[before], *more)
    return points


def _merged(names: Sequence[str], said: _Point) -> list[str]:
    """The default ones that are left, and those that are enabled beside them."""
    disabled = {each.name for each in said.disabled}
    left = [name for name in names if not disabled & {name, EVERY}]
    return left + [each.name for each in said.enabled if each.name not in left]
