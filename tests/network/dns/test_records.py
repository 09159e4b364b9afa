"""What names mean: the table of the DNS schema, without any socket."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import pytest

from knarr.api.core.v1 import Service, ServicePort, ServiceSpec
from knarr.api.discovery.v1 import Endpoint, EndpointConditions, EndpointPort, EndpointSlice
from knarr.api.meta.v1 import ObjectMeta
from knarr.network.dns.records import Zone, lookup, reverse_lookup
from knarr.network.dns.wire import Code, Reply, Type, name_of, text_of

ZONE = Zone(("cluster", "local"), "10.96.0.10")


@dataclass
class Snapshot:
    """A cluster as plain lists."""

    all_services: list[Service] = field(default_factory=list)
    all_slices: list[EndpointSlice] = field(default_factory=list)
    namespaces: tuple[str, ...] = ("shop",)

    def namespace_exists(self, name: str) -> bool:
        return name in self.namespaces

    def service(self, namespace: str, name: str) -> Service | None:
        for each in self.all_services:
            if (each.metadata.namespace, each.metadata.name) == (namespace, name):
                return each
        return None

    def slices(self, namespace: str, service: str) -> Iterable[EndpointSlice]:
        return [each for each in self.all_slices if each.metadata.labels["kubernetes.io/service-name"] == service]

    def services_at(self, address: str) -> Iterable[Service]:
        return [each for each in self.all_services if each.spec and address in each.spec.cluster_ips]

    def slices_at(self, address: str) -> Iterable[EndpointSlice]:
        return [each for each in self.all_slices if any(address in one.addresses for one in each.endpoints)]


def service(name: str, *ips: str, **spec: object) -> Service:
    ports = [ServicePort(name="http", port=80, protocol="TCP"), ServicePort(name="dns", port=53, protocol="UDP")]
    return Service(
        metadata=ObjectMeta(name=name, namespace="shop"),
        spec=ServiceSpec(cluster_ip=ips[0] if ips else None, cluster_ips=list(ips), ports=ports, **spec),
    )


def slice_of(name: str, *endpoints: Endpoint, family: str = "IPv4") -> EndpointSlice:
    return EndpointSlice(
        metadata=ObjectMeta(name=f"{name}-{family}", namespace="shop", labels={"kubernetes.io/service-name": name}),
        address_type=family,
        endpoints=list(endpoints),
        ports=[EndpointPort(name="http", port=8080, protocol="TCP")],
    )


CLUSTER = Snapshot(
    [
        service("web", "10.96.0.20", "fd00:96::20"),
        service("db", "None"),
        service("empty", "None"),
        service("outside", type="ExternalName", external_name="Example.org."),
    ],
    [
        slice_of(
            "db",
            Endpoint(addresses=["10.244.0.5"], hostname="db-0"),
            Endpoint(addresses=["10.244.0.6"], conditions=EndpointConditions(ready=True)),
            Endpoint(addresses=["10.244.0.7"], hostname="db-2", conditions=EndpointConditions(ready=False)),
        ),
        slice_of("db", Endpoint(addresses=["fd00:244::5"], hostname="db-0"), family="IPv6"),
        slice_of("web", Endpoint(addresses=["10.244.0.9"])),
        slice_of("empty"),
    ],
)


def shown(reply: Reply) -> list[str]:
    """Answers as text, in order of text."""

    def part(value: object) -> str:
        return text_of(value) if isinstance(value, tuple) else str(value)

    lines = []
    for record in reply.answers:
        data = record.data if record.type in (Type.SRV, Type.SOA) else (record.data,)
        lines.append(f"{record.type.name} {' '.join(part(each) for each in data)}")  # type: ignore[union-attr]
    return sorted(lines)


def ask(name: str, kind: Type) -> Reply:
    return lookup(CLUSTER, ZONE, name_of(name + ".cluster.local"), kind)


@pytest.mark.parametrize(
    ("name", "kind", "answers"),
    [
        ("web.shop.svc", Type.A, ["A 10.96.0.20"]),
        ("WEB.Shop.SVC", Type.A, ["A 10.96.0.20"]),
        ("web.shop.svc", Type.AAAA, ["AAAA fd00:96::20"]),
        ("web.shop.svc", Type.ANY, ["A 10.96.0.20", "AAAA fd00:96::20"]),
        ("_http._tcp.web.shop.svc", Type.SRV, ["SRV 0 100 80 web.shop.svc.cluster.local."]),
        ("_dns._udp.web.shop.svc", Type.SRV, ["SRV 0 100 53 web.shop.svc.cluster.local."]),
        ("10-244-0-9.web.shop.svc", Type.A, ["A 10.244.0.9"]),
        ("db.shop.svc", Type.A, ["A 10.244.0.5", "A 10.244.0.6"]),
        ("db.shop.svc", Type.AAAA, ["AAAA fd00:244::5"]),
        ("db-0.db.shop.svc", Type.A, ["A 10.244.0.5"]),
        ("10-244-0-6.db.shop.svc", Type.A, ["A 10.244.0.6"]),
        (
            "_http._tcp.db.shop.svc",
            Type.SRV,
            ["SRV 0 50 8080 10-244-0-6.db.shop.svc.cluster.local.", "SRV 0 50 8080 db-0.db.shop.svc.cluster.local."],
        ),
        ("outside.shop.svc", Type.A, ["CNAME example.org."]),
        ("outside.shop.svc", Type.CNAME, ["CNAME example.org."]),
        ("10-244-0-5.shop.pod", Type.A, ["A 10.244.0.5"]),
        ("fd00-244--5.shop.pod", Type.AAAA, ["AAAA fd00:244::5"]),
        ("dns-version", Type.TXT, ["TXT 1.1.0"]),
        ("ns.dns", Type.A, ["A 10.96.0.10"]),
        ("", Type.NS, ["NS ns.dns.cluster.local."]),
    ],
)
def test_a_name_has_its_records(name: str, kind: Type, answers: list[str]) -> None:
    reply = ask(name, kind)
    assert (reply.code, shown(reply)) == (Code.NO_ERROR, answers)
    assert reply.authoritative


@pytest.mark.parametrize(
    "name",
    [
        "nothing.shop.svc",
        "web.elsewhere.svc",
        "elsewhere.svc",
        "_nothing._tcp.web.shop.svc",
        "_http._udp.web.shop.svc",
        "_sctp.web.shop.svc",
        "nobody.db.shop.svc",
        "db-2.db.shop.svc",  # not ready
        "empty.shop.svc",
        "a.b.web.shop.svc",
        "10-244-0-5.elsewhere.pod",
        "not-an-address.shop.pod",
        "www.example.org",  # what a search path makes of it
        "sub.outside.shop.svc",
        "shop",
    ],
)
def test_a_name_that_is_not_there_is_nxdomain_with_the_zones_soa(name: str) -> None:
    reply = ask(name, Type.A)
    assert reply.code == Code.NAME_ERROR
    assert [record.type for record in reply.authorities] == [Type.SOA]


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("web.shop.svc", Type.TXT),
        ("web.shop.svc", Type.SRV),
        ("_tcp.web.shop.svc", Type.A),
        ("shop.svc", Type.A),
        ("svc", Type.A),
        ("pod", Type.A),
        ("10-244-0-6.db.shop.svc", Type.AAAA),
        ("10-244-0-5.shop.pod", Type.AAAA),
        ("", Type.A),
    ],
)
def test_a_name_without_that_type_is_nodata_with_the_zones_soa(name: str, kind: Type) -> None:
    reply = ask(name, kind)
    assert reply.code == Code.NO_ERROR
    assert not reply.answers
    assert [record.type for record in reply.authorities] == [Type.SOA]


def test_srv_answers_carry_their_targets_addresses() -> None:
    reply = ask("_http._tcp.db.shop.svc", Type.SRV)
    assert {record.data for record in reply.additionals} == {"10.244.0.5", "10.244.0.6", "fd00:244::5"}


@pytest.mark.parametrize(
    ("name", "target"),
    [
        ("20.0.96.10.in-addr.arpa", "web.shop.svc.cluster.local."),
        ("5.0.244.10.in-addr.arpa", "db-0.db.shop.svc.cluster.local."),
        ("6.0.244.10.in-addr.arpa", "10-244-0-6.db.shop.svc.cluster.local."),
        (".".join(reversed("fd000096000000000000000000000020")) + ".ip6.arpa", "web.shop.svc.cluster.local."),
    ],
)
def test_addresses_have_names(name: str, target: str) -> None:
    reply = reverse_lookup(CLUSTER, ZONE, name_of(name), Type.PTR)
    assert reply is not None
    assert shown(reply) == [f"PTR {target}"]


@pytest.mark.parametrize("name", ["1.1.1.1.in-addr.arpa", "300.0.96.10.in-addr.arpa", "10.in-addr.arpa", "x.ip6.arpa"])
def test_unknown_addresses_are_for_others(name: str) -> None:
    assert reverse_lookup(CLUSTER, ZONE, name_of(name), Type.PTR) is None
