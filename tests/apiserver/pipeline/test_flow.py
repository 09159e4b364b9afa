"""The door under load and over time: places, time limits, what is counted, health by name."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from knarr.api.durations import duration_s
from knarr.apiserver import flow
from knarr.apiserver.bootstrap import bootstrap
from knarr.apiserver.flow import Flow
from knarr.apiserver.metrics import Metrics
from knarr.client.transport import Answer, Request, User
from knarr.clock import SystemClock
from knarr.store.memory import MemoryStore
from tests.apiserver.pipeline.door import ADMINISTRATOR, CONFIG_MAPS, Door, config_map


def outside(method: str, path: str, user: User = ADMINISTRATOR, body: bytes = b"", **query: str) -> Request:
    headers = {"accept": "application/json", "content-type": "application/json"}
    return Request(method, path, query, headers, body, user)


class SlowStore:
    """Reads of one object wait until they are let go."""

    def __init__(self, store: Any) -> None:
        self._get = store.get
        self.let_go = asyncio.Event()
        store.get = self.get

    async def get(self, key: str) -> Any:
        await self.let_go.wait()
        return await self._get(key)


JANE = User("jane", ("system:authenticated",))


def narrow(door: Door, places: int) -> None:
    """A server with few places for requests in flight."""
    door.server.flow = Flow(door.server.metrics, door.store, door.server.clock, places)


async def let_jane_in(door: Door) -> None:
    binding = {
        "metadata": {"name": "jane"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "jane"}],
    }
    await door.done("POST", "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", binding)


async def test_what_is_over_the_limit_comes_back_later_but_administrators_are_served(door: Door) -> None:
    narrow(door, 1)
    await let_jane_in(door)
    await door.done("POST", CONFIG_MAPS, config_map("a"))
    slow = SlowStore(door.store)

    def get(user: User) -> asyncio.Future[Answer]:
        return asyncio.ensure_future(door.server.handle_from_outside(outside("GET", f"{CONFIG_MAPS}/a", user)))

    first = get(JANE)
    await asyncio.sleep(0)
    refused = await get(JANE)
    assert (refused.status, refused.headers["retry-after"]) == (429, "1")
    assert refused.flow is not None
    second = get(ADMINISTRATOR)
    slow.let_go.set()
    assert [(await each).status for each in (first, second)] == [200, 200]
    assert (await get(JANE)).status == 200


async def test_watches_take_no_place(door: Door) -> None:
    narrow(door, 1)
    await let_jane_in(door)
    watches = [await door.server.handle_from_outside(outside("GET", CONFIG_MAPS, JANE, watch="true")) for _ in range(3)]
    assert [answer.status for answer in watches] == [200, 200, 200]
    assert (await door.server.handle_from_outside(outside("GET", CONFIG_MAPS, JANE))).status == 200
    for answer in watches:
        await answer.stream.aclose()  # type: ignore[union-attr]


async def test_a_request_that_takes_too_long_ends_with_a_timeout(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    SlowStore(door.store)
    answer = await door.server.handle_from_outside(outside("GET", f"{CONFIG_MAPS}/a", timeout="10ms"))
    assert answer.status == 504
    assert b'"reason":"Timeout"' in answer.body
    monkeypatch.setattr(flow, "TIMEOUT_S", 0.01)
    assert (await door.server.handle_from_outside(outside("GET", f"{CONFIG_MAPS}/a"))).status == 504


async def test_a_request_without_a_limit_of_its_own_ends_after_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flow, "LOOK_EVERY_S", 0.01)
    clock = SystemClock()
    monkeypatch.setattr(clock, "monotonic_s", lambda: now_s)
    now_s = 100.0
    limits = Flow(Metrics(), MemoryStore(), clock)
    forever = asyncio.ensure_future(limits.within(60.0, asyncio.Event().wait()))
    assert await limits.within(60.0, asyncio.sleep(0.03, "in time")) == "in time"
    assert not forever.done()
    now_s = 161.0
    with pytest.raises(TimeoutError):
        await forever


async def test_what_is_cancelled_has_not_taken_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flow, "LOOK_EVERY_S", 0.01)
    limits = Flow(Metrics(), MemoryStore(), SystemClock())
    left = asyncio.ensure_future(limits.within(60.0, asyncio.Event().wait()))
    await asyncio.sleep(0)
    left.cancel()
    with pytest.raises(asyncio.CancelledError):
        await left


async def test_whoever_ran_into_a_limit_can_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flow, "LOOK_EVERY_S", 0.0)
    clock = SystemClock()
    moments_s = iter([100.0])  # when the request comes; an hour later it is looked at
    monkeypatch.setattr(clock, "monotonic_s", lambda: next(moments_s, 3700.0))
    limits = Flow(Metrics(), MemoryStore(), clock)

    async def impatient() -> str:
        with pytest.raises(TimeoutError):
            await limits.within(60.0, asyncio.Event().wait())
        return await limits.within(60.0, asyncio.sleep(0, "after it"))

    assert await asyncio.ensure_future(impatient()) == "after it"


async def test_a_timeout_that_is_no_duration_is_a_bad_request(door: Door) -> None:
    answer = await door.server.handle_from_outside(outside("GET", CONFIG_MAPS, timeout="soon"))
    assert answer.status == 400


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("10s", 10), ("1m30s", 90), ("1.5h", 5400), ("20ms", 0.02), ("0", 0), ("5", None), ("s", None)],
)
def test_durations_are_read_as_go_writes_them(text: str, seconds: float | None) -> None:
    assert duration_s(text) == (pytest.approx(seconds) if seconds is not None else None)


async def metrics(door: Door) -> dict[str, float]:
    answer: Answer = await door.server.handle_from_outside(outside("GET", "/metrics"))
    assert answer.headers["content-type"].startswith("text/plain; version=")
    lines = (line.rpartition(" ") for line in answer.body.decode().splitlines() if not line.startswith("#"))
    return {name: float(value) for name, _, value in lines}


async def test_requests_are_counted_under_upstreams_names(door: Door) -> None:
    await door.done("POST", CONFIG_MAPS, config_map("a"))
    await door.server.handle_from_outside(outside("GET", f"{CONFIG_MAPS}/a"))
    await door.server.handle_from_outside(outside("GET", f"{CONFIG_MAPS}/none"))
    await door.server.handle_from_outside(outside("GET", CONFIG_MAPS))
    found = await metrics(door)
    labels = (
        'component="apiserver",dry_run="",group="",resource="configmaps",'
        'scope="{}",subresource="",verb="{}",version="v1"'
    )

    def total(code: int, scope: str, verb: str) -> float:
        values = labels.format(scope, verb)
        return found["apiserver_request_total{code=" + f'"{code}",' + values + "}"]

    assert (total(200, "resource", "GET"), total(404, "resource", "GET"), total(200, "namespace", "LIST")) == (1, 1, 1)
    count = "apiserver_request_duration_seconds_count{" + labels.format("resource", "GET") + "}"
    assert found[count] == 2
    assert found['apiserver_storage_objects{resource="clusterroles.rbac.authorization.k8s.io"}'] > 10
    assert found['apiserver_resource_objects{group="",resource="configmaps"}'] == 1
    assert found["process_resident_memory_bytes"] > 1e6


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", f"{CONFIG_MAPS}/a/invented"),
        ("GET", "/apis/invented/v1/things"),
        ("GET", "/apis/apps/v1/invented"),
        ("INVENTED", CONFIG_MAPS),
    ],
)
async def test_names_that_anybody_invents_are_no_series(door: Door, method: str, path: str) -> None:
    await door.server.handle_from_outside(outside(method, path))
    assert not [name for name in await metrics(door) if "invented" in name.lower()]


async def test_what_happens_on_the_way_of_a_request_is_counted(door: Door) -> None:
    await let_jane_in(door)
    jane, nobody = User("jane", ("system:authenticated",)), User("nobody", ("system:authenticated",))
    assert (await door.server.handle_from_outside(outside("GET", CONFIG_MAPS, jane))).status == 200
    before = await metrics(door)
    body = b'{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"b"}}'
    assert (await door.server.handle_from_outside(outside("POST", CONFIG_MAPS, jane, body))).status == 201
    assert (await door.server.handle_from_outside(outside("GET", CONFIG_MAPS, nobody))).status == 403
    bad = Request("GET", CONFIG_MAPS, headers={"authorization": "Bearer none"})
    assert (await door.server.handle_from_outside(bad)).status == 401
    found = await metrics(door)

    def more(name: str) -> float:
        return found.get(name, 0) - before.get(name, 0)

    assert more('authentication_attempts{result="failure"}') == 1
    assert more('authorization_attempts_total{result="no-opinion"}') == 1
    assert more('authorization_attempts_total{result="allowed"}') == 2, "this one and the reading of these figures"
    flow = '{flow_schema="global-default",priority_level="global-default"}'
    assert more(f"apiserver_flowcontrol_dispatched_requests_total{flow}") == 2
    assert found[f"apiserver_flowcontrol_current_executing_requests{flow}"] == 0
    assert found['apiserver_flowcontrol_nominal_limit_seats{priority_level="global-default"}'] == 49
    for kind in ("admit", "validate"):
        labels = f'{{operation="CREATE",rejected="false",type="{kind}"}}'
        assert more(f"apiserver_admission_step_admission_duration_seconds_count{labels}") == 1
    labels = '{name="NamespaceLifecycle",operation="CREATE",rejected="false",type="admit"}'
    assert more(f"apiserver_admission_controller_admission_duration_seconds_count{labels}") == 1
    assert 'apiserver_storage_size_bytes{storage_cluster_id="knarr"}' in found


async def test_a_request_without_a_place_is_counted_with_its_flow(door: Door) -> None:
    narrow(door, 0)
    await let_jane_in(door)
    jane = User("jane", ("system:authenticated",))
    assert (await door.server.handle_from_outside(outside("GET", CONFIG_MAPS, jane))).status == 429
    name = (
        'apiserver_flowcontrol_rejected_requests_total{flow_schema="global-default",'
        'priority_level="global-default",reason="concurrency-limit"}'
    )
    assert (await metrics(door))[name] == 1


async def test_what_watches_were_told_is_counted_by_size(door: Door) -> None:
    answer = await door.server.handle_from_outside(outside("GET", CONFIG_MAPS, watch="true"))
    assert answer.stream is not None
    await door.done("POST", CONFIG_MAPS, config_map("a"))
    await anext(answer.stream)
    await door.done("POST", CONFIG_MAPS, config_map("b") | {"data": {"x": "y" * 3000}})
    await anext(answer.stream)
    found, labels = await metrics(door), 'group="",resource="configmaps",version="v1"'
    assert found[f"apiserver_watch_events_total{{{labels}}}"] == 2
    sizes = 'apiserver_watch_events_sizes_bucket{group="",le="%s",resource="configmaps",version="v1"}'
    assert [found[sizes % bound] for bound in ("1024.0", "2048.0", "4096.0", "+Inf")] == [1, 1, 2, 2]
    await answer.stream.aclose()  # type: ignore[attr-defined]


async def test_a_path_that_somebody_made_up_is_no_series(door: Door) -> None:
    await door.server.handle_from_outside(outside("GET", "/apis/made.up/v1/things"))
    assert not [name for name in await metrics(door) if "made" in name]


async def test_a_watch_counts_as_long_as_it_lasts(door: Door) -> None:
    name = (
        'apiserver_longrunning_requests{component="apiserver",group="",resource="configmaps",scope="namespace",'
        'subresource="",verb="WATCH",version="v1"}'
    )
    answer = await door.server.handle_from_outside(outside("GET", CONFIG_MAPS, watch="true"))
    assert answer.stream is not None
    await door.done("POST", CONFIG_MAPS, config_map("a"))
    await anext(answer.stream)
    assert (await metrics(door))[name] == 1
    await answer.stream.aclose()  # type: ignore[attr-defined]
    assert (await metrics(door))[name] == 0


async def health(door: Door, path: str, **query: str) -> tuple[int, str]:
    """Single checks are not for everybody: only what system:public-info-viewer names is."""
    user = ADMINISTRATOR if path.count("/") > 1 else None
    answer = await door.server.handle_from_outside(Request("GET", path, query, user=user))
    return answer.status, answer.body.decode()


async def test_health_is_told_check_by_check(door: Door) -> None:
    assert await health(door, "/livez") == (200, "ok")
    status, text = await health(door, "/readyz")
    assert (status, text.splitlines()[-2:]) == (500, ["[+]shutdown ok", "readyz check failed"])
    assert await health(door, "/livez/ping") == (200, "ok")
    assert (await health(door, "/readyz/started"))[0] == 500
    assert (await health(door, "/livez/none"))[0] == 404
    assert (await health(door, "/readyz", exclude="started"))[0] == 200
    door.server.ready = True
    assert await health(door, "/readyz", verbose="") == (
        200,
        "[+]ping ok\n[+]log ok\n[+]etcd ok\n[+]started ok\n[+]shutdown ok\nreadyz check passed\n",
    )


async def test_each_check_has_a_path_that_tells_what_is_wrong(door: Door) -> None:
    assert await health(door, "/readyz/started") == (500, "internal server error: not yet\n")
    assert await health(door, "/readyz/ping", verbose="") == (200, "ok")


async def test_checks_that_cannot_be_excluded_are_named(door: Door) -> None:
    answer = await door.server.handle_from_outside(
        Request("GET", "/livez", {"verbose": "false"}, repeated={"exclude": ["b", "a", "log"]})
    )
    assert answer.body.decode() == (
        "[+]ping ok\n[+]log excluded: ok\n[+]etcd ok\n"
        'warn: some health checks cannot be excluded: no matches for "a","b"\nlivez check passed\n'
    )


async def test_the_store_and_what_is_made_at_the_start_have_checks_of_their_own(door: Door) -> None:
    finished = door.server.health.hook("rbac/bootstrap-roles")
    status, text = await health(door, "/livez")
    assert (status, "[-]poststarthook/rbac/bootstrap-roles failed: reason withheld" in text) == (500, True)
    assert await health(door, "/livez/poststarthook/rbac/bootstrap-roles") == (
        500,
        "internal server error: not finished\n",
    )
    finished()
    assert await health(door, "/livez") == (200, "ok")
    await bootstrap(door.client, ["10.96.0.0/16"], ["10.96.0.10"], "127.0.0.1", 6443, door.server.health)
    _, text = await health(door, "/healthz", verbose="")
    assert "[+]poststarthook/scheduling/bootstrap-system-priority-classes ok" in text
    assert await health(door, "/livez/etcd") == (200, "ok")
    await door.store.close()
    assert door.server.health.checks["etcd"]() == "the store is closed"
