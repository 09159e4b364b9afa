"""Slices change as little as they can, and always hold what they should."""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from knarr.api.core.v1 import Pod, PodIP, Service
from knarr.api.discovery.v1 import EndpointSlice
from knarr.controllers.endpoints import endpoints_of, subsets_of
from knarr.controllers.endpointslice import ENDPOINTS_MAX, Changes, desired, families, plan, reuse


def service(**spec: Any) -> Service:
    return msgspec.convert(
        {
            "metadata": {"name": "web", "namespace": "default", "uid": "s", "labels": {"team": "x"}},
            "spec": {
                "clusterIP": "10.96.0.1",
                "selector": {"app": "web"},
                "ports": [{"name": "http", "port": 80, "targetPort": "http", "protocol": "TCP"}],
                **spec,
            },
        },
        Service,
    )


def pod(number: int, *, ready: bool = True, going: bool = False, port: int = 8080, **spec: Any) -> Pod:
    metadata: dict[str, Any] = {"name": f"p{number}", "namespace": "default", "uid": f"u{number}"}
    if going:
        metadata["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    return msgspec.convert(
        {
            "metadata": metadata | {"labels": {"app": "web"}},
            "spec": {
                "nodeName": "n1",
                "containers": [{"name": "c", "ports": [{"name": "http", "containerPort": port}]}],
                **spec,
            },
            "status": {
                "phase": "Running",
                "podIP": f"10.0.{number // 250}.{number % 250 + 1}",
                "conditions": [{"type": "Ready", "status": "True" if ready else "False"}],
            },
        },
        Pod,
    )


class Slices:
    """The slices of one Service, as the server would keep them."""

    def __init__(self) -> None:
        self.slices: dict[str, EndpointSlice] = {}
        self._names = 0

    def apply(self, one: Service, pods: list[Pod]) -> Changes:
        changes = Changes()
        wanted = desired(one, "IPv4", pods, {"n1": "z1"})
        plan(one, "IPv4", wanted, list(self.slices.values()), changes)
        reuse(one, changes)
        for created in changes.create:
            self._names += 1
            created.metadata.name = f"web-{self._names}"
            self.slices[created.metadata.name] = created
        for updated in changes.update:
            self.slices[updated.metadata.name or ""] = updated
        for deleted in changes.delete:
            del self.slices[deleted.metadata.name or ""]
        return changes

    def addresses(self) -> list[str]:
        return sorted(a for one in self.slices.values() for endpoint in one.endpoints for a in endpoint.addresses)


def writes(changes: Changes) -> tuple[int, int, int]:
    return len(changes.create), len(changes.update), len(changes.delete)


def test_a_service_without_pods_has_one_empty_slice() -> None:
    slices = Slices()
    assert writes(slices.apply(service(), [])) == (1, 0, 0)
    (only,) = slices.slices.values()
    assert only.endpoints == []
    assert only.metadata.labels == {
        "team": "x",
        "kubernetes.io/service-name": "web",
        "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
    }
    assert writes(slices.apply(service(), [])) == (0, 0, 0)
    assert writes(slices.apply(service(), [pod(1)])) == (0, 1, 0), "the empty one takes the pod in"
    (filled,) = slices.slices.values()
    assert (filled.metadata.name, len(filled.endpoints), len(filled.ports)) == (only.metadata.name, 1, 1)


def test_an_endpoint_tells_where_it_is_and_how_it_is() -> None:
    slices = Slices()
    slices.apply(service(), [pod(1, hostname="h", subdomain="web")])
    (only,) = slices.slices.values()
    assert msgspec.to_builtins(only)["endpoints"] == [
        {
            "addresses": ["10.0.0.2"],
            "conditions": {"ready": True, "serving": True, "terminating": False},
            "hostname": "h",
            "nodeName": "n1",
            "targetRef": {"kind": "Pod", "name": "p1", "namespace": "default", "uid": "u1"},
            "zone": "z1",
        }
    ]
    assert msgspec.to_builtins(only)["ports"] == [{"name": "http", "port": 8080, "protocol": "TCP"}]


def test_a_pod_on_its_way_out_serves_but_is_not_ready() -> None:
    def conditions(one: Service, *pods: Pod) -> list[Any]:
        return [
            (endpoint.conditions.ready, endpoint.conditions.serving, endpoint.conditions.terminating)
            for endpoint in next(iter(desired(one, "IPv4", pods, {}).values()))
            if endpoint.conditions
        ]

    assert conditions(service(), pod(1, going=True), pod(2, ready=False)) == [
        (False, True, True),
        (False, False, False),
    ]
    assert conditions(service(publishNotReadyAddresses=True), pod(2, ready=False)) == [(True, False, False)]


def test_one_change_rewrites_one_slice() -> None:
    slices = Slices()
    pods = [pod(number) for number in range(250)]
    assert writes(slices.apply(service(), pods)) == (3, 0, 0)
    assert writes(slices.apply(service(), pods[1:])) == (0, 1, 0)
    assert writes(slices.apply(service(), [pod(5, ready=False) if p is pods[5] else p for p in pods[1:]])) == (0, 1, 0)
    assert writes(slices.apply(service(), [*pods[1:5], pod(5, ready=False), *pods[6:], pod(300)])) == (0, 1, 0)
    assert len(slices.slices) == 3


def sizes(slices: Slices) -> list[int]:
    return sorted(len(one.endpoints) for one in slices.slices.values())


def test_many_new_pods_fill_whole_slices_and_what_is_left_goes_where_it_fits() -> None:
    slices = Slices()
    slices.apply(service(), [pod(number) for number in range(80)])
    assert writes(slices.apply(service(), [pod(number) for number in range(190)])) == (1, 1, 0)
    assert sizes(slices) == [90, 100]
    assert writes(slices.apply(service(), [pod(number) for number in range(200)])) == (0, 1, 0)
    assert writes(slices.apply(service(), [pod(number) for number in range(201)])) == (1, 0, 0)
    assert sizes(slices) == [1, 100, 100]


def test_slices_are_filled_up_only_when_they_are_written_anyway() -> None:
    """Those that are half empty stay so: fewer writes count for more than fewer slices."""
    slices = Slices()
    slices.apply(service(), [pod(number) for number in range(300)])
    half = [pod(number) for number in range(300) if number % 3]
    slices.apply(service(), half)
    before = sizes(slices)
    assert sum(before) == 200
    new = [*half, *(pod(number) for number in range(1000, 1020))]
    assert writes(slices.apply(service(), new)) == (0, 1, 0)


def test_the_slices_of_an_older_service_of_the_same_name_are_not_taken_over() -> None:
    slices = Slices()
    slices.apply(service(), [pod(1)])
    (old,) = slices.slices
    newer = service()
    newer.metadata.uid = "another"
    assert writes(slices.apply(newer, [pod(1)])) == (1, 0, 1)
    assert old not in slices.slices


def test_pods_with_another_number_for_the_named_port_get_their_own_slice() -> None:
    slices = Slices()
    slices.apply(service(), [pod(1), pod(2, port=9090)])
    assert sorted(one.ports[0].port or 0 for one in slices.slices.values()) == [8080, 9090]


@settings(deadline=None, max_examples=50)
@given(st.lists(st.sets(st.integers(0, 260), max_size=260), min_size=1, max_size=6))
def test_whatever_comes_and_goes_the_slices_hold_just_what_they_should(steps: list[set[int]]) -> None:
    slices = Slices()
    for numbers in steps:
        pods = [pod(number) for number in sorted(numbers)]
        slices.apply(service(), pods)
        assert slices.addresses() == sorted(p.status.pod_ip or "" for p in pods if p.status)
        assert all(len(one.endpoints) <= ENDPOINTS_MAX for one in slices.slices.values())
        assert slices.slices
        assert writes(slices.apply(service(), pods)) == (0, 0, 0)


def test_endpoints_have_ready_and_unready_addresses() -> None:
    subsets, truncated = subsets_of(service(), [pod(2, ready=False), pod(1), pod(3, going=True)])
    assert not truncated
    (subset,) = subsets
    assert [address.ip for address in subset.addresses] == ["10.0.0.2"]
    assert [address.ip for address in subset.not_ready_addresses] == ["10.0.0.3"]
    assert msgspec.to_builtins(subset)["ports"] == [{"name": "http", "port": 8080, "protocol": "TCP"}]


def test_endpoints_are_capped_and_say_so() -> None:
    made = endpoints_of(service(), [pod(number) for number in range(1001)], None)
    assert sum(len(subset.addresses) for subset in made.subsets) == 1000
    assert made.metadata.annotations == {"endpoints.kubernetes.io/over-capacity": "truncated"}


def test_a_headless_service_without_ports_has_addresses_all_the_same() -> None:
    subsets, _ = subsets_of(service(clusterIP="None", ports=[]), [pod(1)])
    assert [address.ip for subset in subsets for address in subset.addresses] == ["10.0.0.2"]


def dual(number: int) -> Pod:
    one = pod(number)
    assert one.status is not None
    one.status.pod_ips = msgspec.convert([{"ip": one.status.pod_ip}, {"ip": f"fd00::{number + 1}"}], list[PodIP])
    return one


def test_a_service_of_both_families_has_slices_of_each() -> None:
    both = service(ipFamilies=["IPv6", "IPv4"])
    assert families(both) == ["IPv6", "IPv4"]
    for family, addresses in (("IPv4", ["10.0.0.2"]), ("IPv6", ["fd00::2"])):
        changes = Changes()
        plan(both, family, desired(both, family, [dual(1), pod(2)], {}), [], changes)
        (made,) = changes.create
        assert made.address_type == family
        assert [each.addresses for each in made.endpoints][:1] == [addresses]
        assert len(made.endpoints) == (2 if family == "IPv4" else 1), (
            "a pod without an address of the family is in none"
        )


def test_endpoints_are_of_the_first_family_of_their_service() -> None:
    for wanted, address in ((["IPv6", "IPv4"], "fd00::2"), (["IPv4", "IPv6"], "10.0.0.2")):
        subsets, _ = subsets_of(service(ipFamilies=wanted), [dual(1)])
        assert [each.ip for subset in subsets for each in subset.addresses] == [address]
