"""Extenders: one in memory that shows when each is asked, and upstream's HTTP form against a server of our own."""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiohttp import web

from knarr import pki
from knarr.api.core.v1 import Binding, Node, ObjectReference, Pod
from knarr.api.meta.v1 import ObjectMeta
from knarr.clock import SystemClock
from knarr.scheduler.configuration import SchedulerConfigError, profiles_of
from knarr.scheduler.extenders import Extender, ExtenderFailed, Filtered, Victims
from knarr.scheduler.http_extender import ExtenderConfig, HTTPExtender
from tests.cluster import Cluster, simulate
from tests.scheduler.test_choice import node as bare_node
from tests.scheduler.test_choice import pod as bare_pod
from tests.scheduler.test_configuration import configuration
from tests.scheduler.test_scheduler import SMALL, node_of, scheduled
from tests.scheduler.test_scheduler import pod as cluster_pod


class Opinion(Extender):
    """An extender with fixed opinions, that notes what it is asked."""

    def __init__(self, name: str = "opinion", **opinions: Any) -> None:
        self.name = name
        self.asked: list[str] = []
        self.fit: set[str] | None = None
        self.likes: Mapping[str, int] = {}
        self.fails = False
        self.client: Any = None
        for opinion, value in opinions.items():
            setattr(self, opinion, value)

    def note(self, what: str) -> None:
        self.asked.append(what)
        if self.fails:
            raise ExtenderFailed(f"{self.name} is out of order")

    def is_interested(self, pod: Pod) -> bool:
        return not (pod.metadata.name or "").startswith("plain")

    async def filter(self, pod: Pod, nodes: Sequence[Node]) -> Filtered:
        self.note("filter")
        names = {node.metadata.name or "" for node in nodes}
        fit = names if self.fit is None else names & self.fit
        return Filtered(frozenset(fit), dict.fromkeys(names - fit, "not liked"))

    async def prioritize(self, pod: Pod, nodes: Sequence[Node]) -> Mapping[str, int]:
        self.note("prioritize")
        return self.likes

    async def preempt(
        self, pod: Pod, candidates: Mapping[str, Sequence[Pod]], violations: Mapping[str, int]
    ) -> Mapping[str, Victims]:
        self.note(f"preempt {sorted(candidates)}")
        fit = candidates.keys() if self.fit is None else candidates.keys() & self.fit
        return {name: Victims(tuple(pod.metadata.uid or "" for pod in candidates[name]), 0) for name in fit}

    async def bind(self, pod: Pod, node_name: str) -> None:
        self.note("bind")
        name, namespace = pod.metadata.name or "", pod.metadata.namespace
        metadata = ObjectMeta(name=name, namespace=namespace, annotations={"bound-by": self.name})
        binding = Binding(metadata=metadata, target=ObjectReference(kind="Node", name=node_name))
        await self.client.post(Pod, name, namespace, "binding", binding)


def test_extenders_choose_after_the_plugins_and_may_bind() -> None:
    first = Opinion(fit={"hollow-0", "hollow-2"}, weight=5, likes={"hollow-2": 10, "hollow-1": 10})
    second = Opinion("binder", binds=True)

    async def scenario(cluster: Cluster) -> None:
        second.client = cluster.client
        await cluster.create(cluster_pod("p"))
        await cluster.until(lambda: node_of(cluster, "p"), within_s=1)
        assert node_of(cluster, "p") == "hollow-2"
        assert (first.asked, second.asked) == (["filter", "prioritize"], ["filter", "bind"])
        bound = cluster.pods.get("default/p")
        assert bound is not None
        assert bound.metadata.annotations == {"bound-by": "binder"}
        await cluster.create(cluster_pod("plain"))
        await cluster.until(lambda: node_of(cluster, "plain"), within_s=1)
        assert len(first.asked) == 2  # it is not interested

    simulate(scenario, extenders=[first, second])


def test_a_pod_whose_nodes_an_extender_refuses_is_told_so() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.client.patch(Node, "hollow-0", {"spec": {"unschedulable": True}})
        await cluster.clock.sleep(1)
        await cluster.create(cluster_pod("p"))
        await cluster.until(lambda: scheduled(cluster, "p")[0] == "False", within_s=1)
        reasons = "1 node(s) were unschedulable, 2 not liked."
        assert (scheduled(cluster, "p")[2] or "").startswith(f"0/3 nodes are available: {reasons}")
        extender.fit = None
        await cluster.client.patch(Node, "hollow-0", {"spec": {"unschedulable": None}})
        await cluster.until(lambda: node_of(cluster, "p"), within_s=12)

    extender = Opinion(fit=set())
    simulate(scenario, extenders=[extender])


def test_one_that_fails_is_asked_again_and_one_that_may_be_ignored_is() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.create(cluster_pod("p"))
        await cluster.until(lambda: scheduled(cluster, "p")[0] == "False", within_s=1)
        assert scheduled(cluster, "p") == ("False", "SchedulerError", "opinion is out of order")
        figures = {figure.name: figure.values for figure in cluster.scheduler.figures()}
        assert figures["scheduler_schedule_attempts_total"]["default-scheduler", "unschedulable"] == 0
        assert figures["scheduler_schedule_attempts_total"]["default-scheduler", "error"] == 1
        await cluster.clock.sleep(5)
        assert node_of(cluster, "p") is None
        extender.fails = False
        await cluster.until(lambda: node_of(cluster, "p"), within_s=12)
        ignorable.asked.clear()
        await cluster.create(cluster_pod("q"))
        await cluster.until(lambda: node_of(cluster, "q"), within_s=1)
        assert ignorable.asked == ["filter", "prioritize"]

    extender, ignorable = Opinion(fails=True), Opinion("ignorable", ignorable=True, fails=True, weight=1)
    simulate(scenario, extenders=[ignorable, extender])


def test_one_that_fails_when_it_is_asked_who_gives_way_is_asked_again_only_after_the_backoff() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.create(cluster_pod("plain", "900m"))
        await cluster.until(lambda: node_of(cluster, "plain"))
        await cluster.create(cluster_pod("urgent", "900m", priorityClassName="system-cluster-critical"))
        await cluster.until(lambda: scheduled(cluster, "urgent")[1] == "SchedulerError", within_s=1)
        asked = len(extender.asked)
        for number in range(5):  # nothing of this node's could help before
            patch = {"status": {"allocatable": {"cpu": f"{2 + number}", "memory": "1Gi", "pods": "110"}}}
            await cluster.client.patch(Node, "hollow-0", patch, subresource="status")
            await cluster.clock.sleep(0.1)
        assert len(extender.asked) == asked
        await cluster.until(lambda: node_of(cluster, "urgent"), within_s=12)

    extender = Opinion(preempts=True, fails=True)
    extender.filter = Extender.filter.__get__(extender)  # type: ignore[method-assign]
    simulate(scenario, nodes=1, capacity=SMALL, extenders=[extender])


def test_an_extender_has_a_say_in_who_gives_way() -> None:
    async def scenario(cluster: Cluster) -> None:
        for number in range(3):
            await cluster.create(cluster_pod(f"plain-{number}", "900m"))
        await cluster.until(lambda: all(node_of(cluster, f"plain-{n}") for n in range(3)))
        await cluster.create(cluster_pod("urgent", "900m", priorityClassName="system-cluster-critical"))
        await cluster.until(lambda: node_of(cluster, "urgent"), within_s=40)
        assert node_of(cluster, "urgent") == "hollow-1"
        assert extender.asked[0] == "preempt ['hollow-0', 'hollow-1', 'hollow-2']"

    extender = Opinion(preempts=True, fit={"hollow-1"})
    simulate(scenario, capacity=SMALL, extenders=[extender])


# Over HTTP


class Served:
    """What the server was asked, and what it answers."""

    def __init__(self) -> None:
        self.bodies: dict[str, Any] = {}
        self.answers: dict[str, Any] = {}
        self.status = 200
        self.delay_s = 0.0
        self.url = ""

    async def handle(self, request: web.Request) -> web.Response:
        verb = request.match_info["verb"]
        self.bodies[verb] = await request.json()
        await asyncio.sleep(self.delay_s)
        answer = self.answers.get(verb)
        text = answer if isinstance(answer, str) else json.dumps(answer)
        return web.Response(text=text, status=self.status, content_type="application/json")


@asynccontextmanager
async def server(context: ssl.SSLContext | None = None) -> AsyncIterator[Served]:
    served = Served()
    app = web.Application()
    app.router.add_post("/x/{verb}", served.handle)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
    await site.start()
    served.url = f"{'https' if context else 'http'}://127.0.0.1:{runner.addresses[0][1]}/x/"
    try:
        yield served
    finally:
        await runner.cleanup()


@asynccontextmanager
async def asked(served: Served, **config: Any) -> AsyncIterator[HTTPExtender]:
    verbs = {"filterVerb": "f", "prioritizeVerb": "p", "preemptVerb": "e", "bindVerb": "b", "weight": 2}
    (profile,) = profiles_of(configuration({}, extenders=[{"urlPrefix": served.url, **verbs, **config}]))
    extender = HTTPExtender(profile.extenders[0])
    try:
        yield extender
    finally:
        await extender.close()


POD = msgspec.convert(
    {**msgspec.to_builtins(bare_pod("p")), "metadata": {"name": "p", "namespace": "default", "uid": "u"}}, Pod
)
NODES = [bare_node("a"), bare_node("b")]


async def test_nodes_travel_whole_or_by_name() -> None:
    async with server() as served, asked(served) as whole, asked(served, nodeCacheCapable=True) as brief:
        served.answers["f"] = {"nodes": {"items": [{"metadata": {"name": "b"}}]}, "failedNodes": {"a": "no gpu"}}
        filtered = await whole.filter(POD, NODES)
        assert (filtered.fit, filtered.refused) == ({"b"}, {"a": "no gpu"})
        assert served.bodies["f"]["Pod"]["metadata"]["name"] == "p"
        assert [node["metadata"]["name"] for node in served.bodies["f"]["Nodes"]["items"]] == ["a", "b"]
        served.answers["f"] = {"NodeNames": ["a"], "FailedAndUnresolvableNodes": {"b": "never"}}
        filtered = await brief.filter(POD, NODES)
        assert (filtered.fit, filtered.incurable) == ({"a"}, {"b": "never"})
        assert served.bodies["f"]["NodeNames"] == ["a", "b"]
        assert served.bodies["f"]["Nodes"] is None
        served.answers["p"] = [{"Host": "a", "Score": 7}]
        assert await brief.prioritize(POD, NODES) == {"a": 7}
        assert (brief.weight, brief.preempts, brief.binds) == (2, True, True)


async def test_victims_and_bindings_have_upstreams_form() -> None:
    async with server() as served, asked(served) as whole, asked(served, nodeCacheCapable=True) as brief:
        served.answers["e"] = {"NodeNameToMetaVictims": {"a": {"Pods": [{"UID": "u"}], "NumPDBViolations": 1}}}
        assert await brief.preempt(POD, {"a": [POD]}, {"a": 1}) == {"a": Victims(("u",), 1)}
        assert served.bodies["e"]["NodeNameToMetaVictims"] == {"a": {"Pods": [{"UID": "u"}], "NumPDBViolations": 1}}
        await whole.preempt(POD, {"a": [POD]}, {"a": 1})
        assert served.bodies["e"]["NodeNameToVictims"]["a"]["Pods"][0]["metadata"]["uid"] == "u"
        served.answers["b"] = {"Error": ""}
        await whole.bind(POD, "a")
        assert served.bodies["b"] == {"PodName": "p", "PodNamespace": "default", "PodUID": "u", "Node": "a"}
        served.answers["b"] = {"Error": "no"}
        with pytest.raises(ExtenderFailed, match="no"):
            await whole.bind(POD, "a")


@pytest.mark.parametrize(
    ("answer", "status", "problem"),
    [
        ({}, 500, "failed f with extender at URL .*/x/f, code 500"),
        ("nonsense", 200, "not the answer of an extender"),
        ([1], 200, "not the answer of an extender"),
        ({"NodeNames": [1]}, 200, "not the answer of an extender"),
        ({"Error": "out of gpus"}, 200, "out of gpus"),
        ({"NodeNames": ["c"]}, 200, 'claims a filtered node "c" which is not found'),
    ],
)
async def test_bad_answers_are_failures(answer: Any, status: int, problem: str) -> None:
    async with server() as served, asked(served, nodeCacheCapable=True) as extender:
        served.answers["f"], served.status = answer, status
        with pytest.raises(ExtenderFailed, match=problem):
            await extender.filter(POD, NODES)


async def test_a_silent_extender_and_an_absent_one_are_failures() -> None:
    async with server() as served, asked(served, httpTimeout="50ms") as extender:
        served.delay_s = 1.0  # the end of the server waits for it
        with pytest.raises(ExtenderFailed, match=r'Post "http:.*": context deadline exceeded'):
            await extender.filter(POD, NODES)
    async with asked(served) as extender:
        with pytest.raises(
            ExtenderFailed, match=r'Post "http:.*": dial tcp 127.0.0.1:\d+: connect: connection refused$'
        ):
            await extender.filter(POD, NODES)


async def test_over_https_its_certificate_is_for_the_name_that_is_configured(tmp_path: Path) -> None:
    made = pki.ensure(tmp_path, SystemClock(), dns_names=["gpus.example"], addresses=[])
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(made.apiserver.certificate_path, made.apiserver.key_path)
    named = {"serverName": "gpus.example", "caFile": str(made.ca.certificate_path)}
    embedded = {"serverName": "gpus.example", "caData": base64.b64encode(made.ca.certificate_pem).decode()}
    async with server(context) as served:
        served.answers["p"] = [{"Host": "a", "Score": 7}]
        for tls in (named, embedded):
            async with asked(served, tlsConfig=tls) as extender:
                assert await extender.prioritize(POD, NODES) == {"a": 7}
        async with asked(served, tlsConfig={"caFile": named["caFile"]}) as extender:
            with pytest.raises(
                ExtenderFailed, match=r"tls: failed to verify certificate: .* not valid for '127\.0\.0\.1'"
            ):
                await extender.prioritize(POD, NODES)


@pytest.mark.parametrize(
    ("tls", "problem"),
    [
        ({"caFile": "/none.pem"}, r"extenders\[0\].tlsConfig: .*No such file or directory"),
        ({"caData": "bm9uZQ=="}, r"extenders\[0\].tlsConfig: .*does not contain a certificate"),
        ({"caData": "%"}, r"Invalid base64 encoded string - at `\$.extenders\[0\].tlsConfig.caData`"),
        ({"certData": "bm9uZQ==", "keyData": "bm9uZQ=="}, r"extenders\[0\].tlsConfig: .*PEM"),
    ],
)
def test_certificates_that_cant_be_used_are_refused_at_the_start(tls: dict[str, str], problem: str) -> None:
    with pytest.raises(SchedulerConfigError, match=problem):
        profiles_of(configuration({}, extenders=[{"urlPrefix": "https://gpus.example", "tlsConfig": tls}]))


def test_it_is_asked_only_about_pods_that_want_its_resources() -> None:
    config = {"urlPrefix": "http://x", "managedResources": [{"name": "a.com/gpu", "ignoredByScheduler": True}]}
    (profile,) = profiles_of(configuration({}, extenders=[config]))
    assert profile.ignored == {"a.com/gpu"}
    extender = HTTPExtender(msgspec.convert(config, ExtenderConfig))
    asks = {"limits": {"a.com/gpu": "1"}, "requests": {"a.com/gpu": "1"}}
    wants = bare_pod("g", containers=[{"name": "c", "image": "i", "resources": asks}])
    assert extender.is_interested(wants)
    assert not extender.is_interested(POD)
