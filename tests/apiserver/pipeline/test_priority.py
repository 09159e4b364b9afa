"""Which flow a request is of, how its level is named in the answer, and how levels share the places."""

from __future__ import annotations

from typing import Any

import pytest

from knarr.api.errors import TooManyRequests
from knarr.api.flowcontrol.defaults import LEVELS, SCHEMAS
from knarr.apiserver.action import action_of
from knarr.apiserver.priority import Level, Pool, Priorities, divided, matches
from knarr.apiserver.requests import resource_path
from knarr.client.transport import Request, User
from knarr.store.memory import MemoryStore
from tests.api.made import plain
from tests.apiserver.pipeline.door import ADMINISTRATOR, CONFIG_MAPS, Door

GROUP = "/apis/flowcontrol.apiserver.k8s.io/v1"
AUTHENTICATED = "system:authenticated"
NODE = User("system:node:one", ("system:nodes", AUTHENTICATED))
MANAGER = User("system:kube-controller-manager", (AUTHENTICATED,))
SCHEDULER = User("system:kube-scheduler", (AUTHENTICATED,))
JANE = User("jane", (AUTHENTICATED,))
ANONYMOUS = User("system:anonymous", ("system:unauthenticated",))
LEASE = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/a"


def account(namespace: str, name: str) -> User:
    groups = ("system:serviceaccounts", f"system:serviceaccounts:{namespace}", AUTHENTICATED)
    return User(f"system:serviceaccount:{namespace}:{name}", groups)


def schema_of(user: User, method: str, path: str) -> str:
    action = action_of(Request(method, path), resource_path(path))
    ordered = sorted(SCHEMAS, key=lambda each: (each.spec.matching_precedence, each.metadata.name))  # type: ignore[union-attr]
    return next(str(each.metadata.name) for each in ordered if matches(each, user, action))


@pytest.mark.parametrize(
    ("user", "method", "path", "schema"),
    [
        (ADMINISTRATOR, "GET", "/api/v1/pods", "exempt"),
        (ADMINISTRATOR, "GET", "/healthz", "exempt"),
        (JANE, "GET", "/healthz", "probes"),
        (ANONYMOUS, "GET", "/livez/ping", "probes"),
        (JANE, "POST", "/healthz", "global-default"),
        (NODE, "PATCH", "/api/v1/nodes/one/status", "system-node-high"),
        (NODE, "PUT", LEASE, "system-node-high"),
        (NODE, "GET", "/api/v1/namespaces/shop/pods/web", "system-nodes"),
        (MANAGER, "PUT", LEASE, "system-leader-election"),
        (SCHEDULER, "PUT", LEASE, "system-leader-election"),
        (MANAGER, "PUT", "/api/v1/namespaces/shop/endpoints/web", "endpoint-controller"),
        (MANAGER, "DELETE", LEASE, "kube-controller-manager"),
        (SCHEDULER, "GET", "/version", "kube-scheduler"),
        (account("kube-system", "loop"), "PUT", LEASE, "system-leader-election"),
        (
            account("kube-system", "endpoint-controller"),
            "PUT",
            "/api/v1/namespaces/a/endpoints/b",
            "endpoint-controller",
        ),
        (account("kube-system", "loop"), "GET", "/api/v1/pods", "kube-system-service-accounts"),
        (account("kube-systematic", "loop"), "GET", "/api/v1/pods", "service-accounts"),
        (account("shop", "web"), "GET", "/api/v1/pods", "service-accounts"),
        (JANE, "GET", "/api/v1/pods", "global-default"),
        (ANONYMOUS, "GET", "/apis", "global-default"),
        (User("nobody"), "GET", "/apis", "catch-all"),
    ],
)
def test_the_first_schema_that_matches_decides(user: User, method: str, path: str, schema: str) -> None:
    if schema == "catch-all":
        with pytest.raises(StopIteration):
            schema_of(user, method, path)
    else:
        assert schema_of(user, method, path) == schema


def test_levels_share_the_places_by_their_shares() -> None:
    divided_up = divided({str(level.metadata.name): level for level in LEVELS}, 600)
    shares = {name: (own, most) for name, (own, most, _) in divided_up.items()}
    assert shares == {
        "catch-all": (13, 600),
        "system": (74 - 24, 600),
        "node-high": (98 - 24, 600),
        "leader-election": (25, 600),
        "workload-high": (98 - 49, 600),
        "workload-low": (245 - 220, 600),
        "global-default": (49 - 24, 600),
    }


def test_a_level_borrows_what_nobody_else_needs_and_no_more() -> None:
    pool = Pool(10)
    high, low = Level(pool), Level(pool)
    high.own, high.most, low.own, low.most = 4, 10, 2, 10
    pool.kept_free = 6
    for _ in range(6):
        low.take()
    with pytest.raises(TooManyRequests):
        low.take()
    for _ in range(4):
        high.take()
    with pytest.raises(TooManyRequests):
        high.take()
    low.give_back()
    high.take()
    assert (pool.taken, pool.kept_free) == (10, 0)
    for _ in range(5):
        low.give_back()
        high.give_back()
    assert (pool.taken, pool.kept_free) == (0, 6)


def test_a_level_borrows_no_more_than_it_may() -> None:
    pool = Pool(10)
    level = Level(pool)
    level.own = level.most = pool.kept_free = 2
    level.take()
    level.take()
    with pytest.raises(TooManyRequests):
        level.take()


def test_exempt_requests_are_never_refused() -> None:
    level = Level(Pool(0))
    level.exempt = True
    assert [level.take() for _ in range(100)] == [False] * 100


async def flow_of(priorities: Priorities, user: User) -> Any:
    if not priorities.follower.fresh():
        await priorities.follower.catch_up()
    return priorities.of(user, action_of(Request("GET", CONFIG_MAPS), resource_path(CONFIG_MAPS)))


async def test_a_server_without_any_schema_has_places_all_the_same() -> None:
    priorities = Priorities(MemoryStore(), 5)
    flow = await flow_of(priorities, JANE)
    assert (flow.headers, flow.level.own, flow.level.exempt) == (None, 5, False)
    assert (await flow_of(priorities, ADMINISTRATOR)).level.exempt


async def test_what_is_held_stays_counted_when_shares_change(door: Door) -> None:
    priorities = Priorities(door.store, 100)
    level = (await flow_of(priorities, JANE)).level
    level.take()
    await door.done("DELETE", f"{GROUP}/prioritylevelconfigurations/system")
    assert (await flow_of(priorities, JANE)).level is level
    assert (level.taken, level.pool.taken) == (1, 1)
    level.give_back()
    own = divided({str(each.metadata.name): each for each in LEVELS if each.metadata.name != "system"}, 100)
    assert level.pool.kept_free == sum(places for places, _, _ in own.values())


async def test_a_schema_whose_level_is_gone_is_passed_over(door: Door) -> None:
    priorities = Priorities(door.store, 100)
    first = (await flow_of(priorities, JANE)).headers
    await door.done("DELETE", f"{GROUP}/prioritylevelconfigurations/global-default")
    second = (await flow_of(priorities, JANE)).headers
    catch_all = await door.done("GET", f"{GROUP}/flowschemas/catch-all")
    assert first != second
    assert second.headers["X-Kubernetes-PF-FlowSchema-UID"] == catch_all["metadata"]["uid"]


@pytest.mark.parametrize(
    ("user", "schema", "level"), [(ADMINISTRATOR, "exempt", "exempt"), (JANE, "global-default", "global-default")]
)
async def test_every_answer_names_its_schema_and_level(door: Door, user: User, schema: str, level: str) -> None:
    expected = {
        "X-Kubernetes-PF-FlowSchema-UID": (await door.done("GET", f"{GROUP}/flowschemas/{schema}"))["metadata"]["uid"],
        "X-Kubernetes-PF-PriorityLevel-UID": (await door.done("GET", f"{GROUP}/prioritylevelconfigurations/{level}"))[
            "metadata"
        ]["uid"],
    }
    for path in (CONFIG_MAPS, f"{CONFIG_MAPS}/none", "/apis"):
        answer = await door.server.handle_from_outside(Request("GET", path, {}, {}, b"", user))
        assert answer.flow is not None
        assert answer.flow.headers == expected
        assert answer.flow.lines.decode().splitlines() == [f"{name}: {value}" for name, value in expected.items()]


async def test_a_new_schema_counts_with_the_next_request(door: Door) -> None:
    spec = {
        "matchingPrecedence": 50,
        "priorityLevelConfiguration": {"name": "workload-low"},
        "rules": [
            {
                "subjects": [{"kind": "User", "user": {"name": "jane"}}],
                "resourceRules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "namespaces": ["default"]}],
            }
        ],
    }
    asked = Request("GET", CONFIG_MAPS, {}, {}, b"", JANE)
    before = await door.server.handle_from_outside(asked)
    made = await door.done("POST", f"{GROUP}/flowschemas", {"metadata": {"name": "jane"}, "spec": spec})
    after = await door.server.handle_from_outside(asked)
    assert before.flow != after.flow
    assert after.flow is not None
    assert after.flow.headers["X-Kubernetes-PF-FlowSchema-UID"] == made["metadata"]["uid"]


async def test_a_cluster_has_upstreams_schemas_and_levels(door: Door) -> None:
    for plural, wanted in (("flowschemas", SCHEMAS), ("prioritylevelconfigurations", LEVELS)):
        items = (await door.done("GET", f"{GROUP}/{plural}"))["items"]
        specs = {each["metadata"]["name"]: each["spec"] for each in items}
        assert specs == {each.metadata.name: plain(each.spec) for each in wanted}
