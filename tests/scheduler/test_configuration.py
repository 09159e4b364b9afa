"""KubeSchedulerConfiguration: what is read, what is refused, and that profiles do what they say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from knarr.api.core.v1 import Event
from knarr.cli.scheduling import profiles
from knarr.config import Config, ConfigError
from knarr.scheduler.cache import Cache, NodeInfo, PodInfo
from knarr.scheduler.configuration import Profile, SchedulerConfigError, profiles_of
from knarr.scheduler.plugins import ALL
from knarr.scheduler.plugins.resources_fit import ResourcesFit, Strategy
from tests.cluster import Cluster, simulate
from tests.scheduler.test_choice import node, pod
from tests.scheduler.test_scheduler import SMALL, node_of, scheduled
from tests.scheduler.test_scheduler import pod as cluster_pod
from tests.scheduler.test_steps import Gang, OwnBinder

URL = "http://extender.example.com"


def configuration(*profiles: dict[str, Any], **more: Any) -> dict[str, Any]:
    version = "kubescheduler.config.k8s.io/v1"
    return {"apiVersion": version, "kind": "KubeSchedulerConfiguration", "profiles": list(profiles), **more}


def fit_args(**args: Any) -> list[dict[str, Any]]:
    return [{"name": "NodeResourcesFit", "args": args}]


def test_a_profile_that_says_nothing_is_the_default_one() -> None:
    (found,) = profiles_of(configuration({}))
    default = Profile()
    assert found == default


def test_plugins_go_and_come_back_with_another_weight() -> None:
    plugins = {
        "multiPoint": {"disabled": [{"name": "ImageLocality"}, {"name": "DefaultPreemption"}]},
        "filter": {"disabled": [{"name": "NodePorts"}]},
        "score": {
            "disabled": [{"name": "*"}],
            "enabled": [{"name": "NodeResourcesFit", "weight": 7}, {"name": "TaintToleration"}],
        },
    }
    (found,) = profiles_of(configuration({"plugins": plugins}))
    assert found.weights == {"NodeResourcesFit": 7, "TaintToleration": 3}
    assert "NodePorts" not in found.points["filter"]
    assert "NodeResourcesFit" in found.points["filter"]
    assert found.points["postFilter"] == ()


def test_the_plugins_of_a_point_are_asked_in_the_order_in_which_they_are_enabled() -> None:
    plugins = {
        "multiPoint": {"enabled": [{"name": "Gang"}]},
        "filter": {"enabled": [{"name": "NodePorts"}]},
        "bind": {"disabled": [{"name": "*"}], "enabled": [{"name": "Own"}, {"name": "DefaultBinder"}]},
    }
    (found,) = profiles_of(configuration({"plugins": plugins}), (*ALL, Gang, OwnBinder))
    assert found.points["filter"][:2] == ("NodePorts", "NodeUnschedulable")
    assert found.points["filter"].count("NodePorts") == 1
    assert found.points["bind"] == ("Own", "DefaultBinder")
    assert found.points["permit"] == found.points["reserve"][1:] == ("Gang",)
    assert found.points["queueSort"] == ("PrioritySort",)
    (found,) = profiles_of(configuration({}), (*ALL, Gang, OwnBinder))
    assert found.points["permit"] == ()  # a plugin that is only there is not used
    assert found.points["bind"] == ("DefaultBinder",)


@pytest.mark.parametrize(
    ("written", "problem"),
    [
        ({"kind": "Other", "apiVersion": "v1"}, "must be a KubeSchedulerConfiguration of kubescheduler.config"),
        ([], "Expected `object`, got `array`"),
        (
            configuration({"schedulerName": "a"}, {"schedulerName": "a"}),
            'profiles[1].schedulerName: Duplicate value: "a"',
        ),
        (configuration({"plugins": {"score": {"enabled": [{"name": "Own"}]}}}), 'plugins.score: Invalid value: "Own"'),
        (configuration({"plugins": {"permits": {}}}), "unknown field `permits`"),
        (
            configuration({"plugins": {"permit": {"enabled": [{"name": "NodePorts"}]}}}),
            'profiles[0].plugins.permit: Invalid value: "NodePorts": plugin "NodePorts" does not extend permit',
        ),
        (configuration({"plugins": {"bind": {"enabled": [{"name": "Own"}]}}}), 'bind: Invalid value: "Own": no such'),
        (
            configuration({"plugins": {"bind": {"disabled": [{"name": "DefaultBinder"}]}}}),
            'profile with scheduler name "default-scheduler" needs at least one bind plugin',
        ),
        (
            configuration({"plugins": {"queueSort": {"disabled": [{"name": "*"}]}}}),
            "needs exactly one queue sort plugin",
        ),
        (
            configuration({"plugins": {"score": {"enabled": [{"name": "ImageLocality"}] * 2}}}),
            'plugins.score: Duplicate value: "ImageLocality"',
        ),
        (configuration({"pluginConfig": [{"name": "ImageLocality"}]}), "ImageLocality takes no args here"),
        (configuration({"pluginConfig": fit_args(scoringStrategy={"type": "Other"})}), "Invalid enum value 'Other'"),
        (
            configuration({"pluginConfig": fit_args(scoringStrategy={"type": "RequestedToCapacityRatio"})}),
            "shape: Required value: at least one point must be specified",
        ),
        (configuration({}, percentageOfNodesToScore=101), "percentageOfNodesToScore: not in valid range [0-100]"),
        (configuration({}, extenders=[{}]), "missing required field `urlPrefix`"),
        (configuration({}, extenders=[{"urlPrefix": "ftp://x"}]), "must be an http or https URL"),
        (
            configuration({}, extenders=[{"urlPrefix": URL, "prioritizeVerb": "p"}]),
            "extenders[0].weight: Invalid value: 0: must have a positive weight applied to it",
        ),
        (
            configuration({}, extenders=[{"urlPrefix": URL, "bindVerb": "b"}] * 2),
            "only one extender can implement bind",
        ),
        (configuration({}, extenders=[{"urlPrefix": URL, "httpTimeout": "soon"}]), "must be a duration such as 5s"),
        (
            configuration({}, extenders=[{"urlPrefix": URL, "managedResources": [{"name": "cpu"}]}]),
            'managedResources[0].name: Invalid value: "cpu": must be the name of an extended resource',
        ),
        (
            configuration({}, extenders=[{"urlPrefix": URL, "managedResources": [{"name": "a.com/b"}]}] * 2),
            'extenders[1].managedResources[0].name: Invalid value: "a.com/b": duplicate extender managed resource',
        ),
    ],
)
def test_what_cannot_work_is_refused_and_named(written: Any, problem: str) -> None:
    with pytest.raises(SchedulerConfigError) as refused:
        profiles_of(written)
    assert any(problem in each for each in refused.value.problems), refused.value.problems


def test_the_problems_of_a_file_are_told_at_start(tmp_path: Path) -> None:
    file = tmp_path / "scheduler.yaml"
    with pytest.raises(ConfigError) as refused:
        profiles(Config(scheduler_config=str(file)))
    assert refused.value.problems == [f"schedulerConfig: {file}: No such file or directory"]
    file.write_text("kind: 2026-13-45")
    with pytest.raises(ConfigError, match="not YAML"):
        profiles(Config(scheduler_config=str(file)))
    file.write_text("kind: [")
    with pytest.raises(ConfigError, match="not YAML"):
        profiles(Config(scheduler_config=str(file)))


SHAPE = ((0, 0), (50, 100), (100, 20))


@pytest.mark.parametrize(
    ("strategy", "taken", "score"),
    [
        (Strategy(), "1", (75 + 100) // 2),
        (Strategy("MostAllocated"), "1", (25 + 0) // 2),
        (Strategy("MostAllocated", {"cpu": 3, "memory": 1}), "2", 150 // 4),
        (Strategy("MostAllocated", {"cpu": 1, "example.com/gpu": 5}), "1", 25),  # not asked for: it does not count
        (Strategy("RequestedToCapacityRatio", {"cpu": 1}, SHAPE), "1", 50),
        (Strategy("RequestedToCapacityRatio", {"cpu": 1}, SHAPE), "3", 60),
        (Strategy("RequestedToCapacityRatio", {"cpu": 1}, SHAPE), "4", 20),
    ],
)
def test_each_strategy_likes_what_it_says(strategy: Strategy, taken: str, score: int) -> None:
    plugin = ResourcesFit(Cache())
    plugin.strategy = strategy
    info = NodeInfo("a")
    info.set_node(node("a", cpu="4", memory="100Gi"))
    one = PodInfo(pod("p", cpu=taken, memory="1"))
    assert plugin.score(plugin.prepare_score(one), info) == score


def test_extended_resources_are_filtered_unless_others_look_after_them() -> None:
    plugin = ResourcesFit(Cache())
    info = NodeInfo("a")
    info.set_node(node("a"))
    asked = {"requests": {"example.com/gpu": "1"}, "limits": {"example.com/gpu": "1"}}
    one = PodInfo(pod("p", containers=[{"name": "c", "image": "i", "resources": asked}]))
    refusal = plugin.filter(plugin.prepare(one), info)
    assert refusal is not None
    assert refusal.reasons == ("Insufficient example.com/gpu",)
    plugin.ignored_groups = frozenset({"example.com"})
    assert plugin.filter(plugin.prepare(one), info) is None


def test_each_profile_places_the_pods_that_name_it_in_its_way() -> None:
    packing = {
        "schedulerName": "packing",
        "plugins": {
            "score": {"disabled": [{"name": "*"}], "enabled": [{"name": "NodeResourcesFit"}]},
            "postFilter": {"disabled": [{"name": "DefaultPreemption"}]},
        },
        "pluginConfig": fit_args(scoringStrategy={"type": "MostAllocated"}),
    }
    found = profiles_of(configuration({}, packing))

    async def scenario(cluster: Cluster) -> None:
        for number in range(3):
            await cluster.create(cluster_pod(f"packed-{number}", schedulerName="packing"))
        await cluster.until(lambda: all(node_of(cluster, f"packed-{number}") for number in range(3)))
        assert len({node_of(cluster, f"packed-{number}") for number in range(3)}) == 1
        for number in range(3):
            await cluster.create(cluster_pod(f"spread-{number}"))
        await cluster.until(lambda: all(node_of(cluster, f"spread-{number}") for number in range(3)))
        assert len({node_of(cluster, f"spread-{number}") for number in range(3)}) > 1
        urgent = cluster_pod("urgent", "900m", schedulerName="packing", priorityClassName="system-cluster-critical")
        for number in range(3):
            await cluster.create(cluster_pod(f"filler-{number}", "600m"))
        await cluster.until(lambda: all(node_of(cluster, f"filler-{number}") for number in range(3)))
        await cluster.create(urgent)
        await cluster.until(lambda: scheduled(cluster, "urgent")[0] == "False")
        await cluster.clock.sleep(60)
        assert node_of(cluster, "urgent") is None  # its profile never preempts
        events = [event for event in (await cluster.client.list(Event)).items if event.reason == "FailedScheduling"]
        assert {event.reporting_component for event in events} == {"packing"}

    simulate(scenario, profiles=found, capacity=SMALL)
