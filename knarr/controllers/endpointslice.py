"""EndpointSlices: where the traffic of a Service can go, for proxies and DNS to follow.

The endpoints of a Service lie in slices of at most ENDPOINTS_MAX (KEP-752), those of each family and list of ports
apart. A change rewrites as few slices as possible: an endpoint stays in its slice, new ones fill slices that change
anyway. Pods on their way out stay until they are gone, as terminating, and as serving while they are ready (KEP-1672).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from ipaddress import ip_address

from msgspec import field

from knarr.api.core.pod_state import is_ready
from knarr.api.core.service_selection import has_pods, selects
from knarr.api.core.v1 import Node, Pod, Service
from knarr.api.discovery.v1 import Endpoint, EndpointConditions, EndpointPort, EndpointSlice
from knarr.api.errors import NotFound
from knarr.api.meta.owners import owner_reference
from knarr.api.meta.v1 import ObjectMeta
from knarr.api.types import replace
from knarr.client.controller import Controller
from knarr.client.informer import key_of
from knarr.controllers.nodelifecycle import node_index
from knarr.controllers.ownership import is_going
from knarr.controllers.service_pods import (
    HEADLESS,
    counts,
    hostname_for,
    is_headless,
    reference_to,
    services_woken,
    target_port,
)
from knarr.controllers.together import together
from knarr.controllers.topology_hints import (
    DISABLED,
    ENABLED,
    ZONE,
    Hinted,
    Shares,
    Slices,
    distribution_of,
    facts_of,
    hint_near,
    hint_shares,
    is_overloaded,
    shares_of,
    wants_shares,
)
from knarr.controllers.trigger_times import TriggerTimes, with_trigger_time

ENDPOINTS_MAX = 100
"""Endpoints of one slice, as upstream's --max-endpoints-per-slice."""
HOLD_PER_POD_S = 50e-6
"""A look at n pods costs about n × 10 µs: so it takes no more than a fifth of the time."""
SERVICE_NAME = "kubernetes.io/service-name"
MANAGED_BY = "endpointslice.kubernetes.io/managed-by"
MANAGER = "endpointslice-controller.k8s.io"

Ports = tuple[tuple[str | None, int | None, str | None, str | None], ...]
"""The ports of a slice: name, number, protocol, application protocol."""


class Changes(Slices):
    """What to do with the slices of a Service."""

    delete: list[EndpointSlice] = field(default_factory=list)


class EndpointSlices(Controller):
    """discovery.k8s.io/v1 EndpointSlice, for Services with a selector."""

    name = "endpointslice-controller"
    event_source = "endpoint-slice-controller"
    min_interval_s = 0.02

    def watch(self) -> None:
        self.services = self.informer(Service)
        self.pods = self.informer(Pod)
        self.pods.add_index("node", node_index)
        self.nodes = self.informer(Node)
        self.slices = self.informer(EndpointSlice)
        key_of_slice = service_key(MANAGER)
        self.slices.add_index("service", lambda slice_: filter(None, (key_of_slice(slice_),)))
        self.on(self.services, key_of)
        self.on(self.slices, key_of_slice)
        self.on_change(self.pods, lambda old, new: services_woken(self.services, old, new))
        self.on_change(self.nodes, self._keys_of_node)
        self._times = TriggerTimes()
        self._shares: Shares | None = None
        self._shares_known = False
        self._hinted: dict[str, dict[str, Hinted]] = {}
        """Of Services that want hints in proportion: what they have, by family."""

    async def reconcile(self, key: str) -> None:
        service = self.services.get(key)
        if service is None:
            self._times.forget(key)
            self._hinted.pop(key, None)
        if service is None or not has_pods(service) or service.metadata.deletion_timestamp is not None:
            return  # slices go with their Service, by their owner reference
        selected = [
            pod
            for pod in self.pods.by_index("namespace", service.metadata.namespace or "")
            if selects(service, pod.metadata.labels)
        ]
        time = self._times.look(key, service, selected)
        publish = bool(service.spec and service.spec.publish_not_ready_addresses)
        # A pod of a node that is not there (any more) is reached by nobody; its Service is woken when the node comes.
        pods = [
            pod
            for pod in selected
            if counts(service, pod, terminating=True) and (publish or self.nodes.get(_node_of(pod)))
        ]
        zones = {name: self._zone(name) for name in map(_node_of, pods)}
        existing = [slice_ for slice_ in self.slices.by_index("service", key) if not is_going(slice_)]
        total = Changes()
        for family in families(service):
            same = [slice_ for slice_ in existing if slice_.address_type == family]
            changes = Changes()
            plan(service, family, desired(service, family, pods, zones), same, changes)
            self._hint(key, service, family, changes)
            reuse(service, changes)
            total.create += changes.create
            total.update += changes.update
            total.delete += changes.delete
        for slice_ in existing:
            if slice_.address_type not in families(service):
                total.delete.append(slice_)
                self._hinted.get(key, {}).pop(slice_.address_type, None)
        for slice_ in (*total.create, *total.update):
            annotations = with_trigger_time(slice_.metadata.annotations, time)
            slice_.metadata = replace(slice_.metadata, annotations=annotations)
        self.queue.hold(key, HOLD_PER_POD_S * len(pods))
        await self._carry_out(total)

    def _hint(self, key: str, service: Service, family: str, changes: Changes) -> None:
        """Topology hints, and the events that tell of them."""
        before = self._hinted.get(key, {})
        if not wants_shares(service):
            hint_near(changes, distribution_of(service))
            if before.pop(family, None):
                self._tell_disabled(service, family, DISABLED)
            if not before:
                self._hinted.pop(key, None)
            return
        hinted, fault = hint_shares(changes, self._known_shares())
        if fault:
            before.pop(family, None)
            self._tell_disabled(service, family, fault)
            return
        if not before:
            self.events.normal(service, "TopologyAwareHintsEnabled", f"{ENABLED}, addressType: {family}")
        self._hinted.setdefault(key, {})[family] = hinted

    def _tell_disabled(self, service: Service, family: str, why: str) -> None:
        self.events.warning(service, "TopologyAwareHintsDisabled", f"{why}, addressType: {family}")

    def _known_shares(self) -> Shares | None:
        if not self._shares_known:
            self._shares, self._shares_known = shares_of(self.nodes.all()), True
        return self._shares

    async def _carry_out(self, changes: Changes) -> None:
        await together(self.client.create(slice_) for slice_ in changes.create)
        await together(self.client.update(slice_) for slice_ in changes.update)
        await together(self._delete(slice_) for slice_ in changes.delete)

    async def _delete(self, slice_: EndpointSlice) -> None:
        try:
            await self.client.delete(EndpointSlice, slice_.metadata.name or "", slice_.metadata.namespace)
        except NotFound:
            pass

    def _zone(self, node_name: str) -> str | None:
        node = self.nodes.get(node_name)
        return (node.metadata.labels.get(ZONE) or None) if node else None

    def _keys_of_node(self, old: Node | None, new: Node | None) -> Iterable[str]:
        """A node that comes, goes or changes its zone moves all its pods; its readiness and CPUs move only hints."""
        if old is not None and new is not None and facts_of(old) == facts_of(new):
            return ()
        self._shares_known = False
        if old is None or new is None or old.metadata.labels.get(ZONE) != new.metadata.labels.get(ZONE):
            node = new or old
            assert node is not None
            pods = self.pods.by_index("node", node.metadata.name or "")
            return {key for pod in pods for key in services_woken(self.services, None, pod)}
        shares = self._known_shares() if self._hinted else None
        return [
            key
            for key, families in self._hinted.items()
            if any(is_overloaded(hinted, shares) for hinted in families.values())
        ]


def _node_of(pod: Pod) -> str:
    return (pod.spec.node_name if pod.spec else None) or ""


def families(service: Service) -> list[str]:
    """The address types of a Service's slices."""
    spec = service.spec
    if spec is None:
        return []
    if spec.ip_families:
        return spec.ip_families
    return ["IPv6"] if spec.cluster_ip and ":" in spec.cluster_ip else ["IPv4"]


def desired(
    service: Service, family: str, pods: Sequence[Pod], zones: Mapping[str, str | None]
) -> dict[Ports, list[Endpoint]]:
    """The endpoints that there should be, by the ports that they offer."""
    found: dict[Ports, list[Endpoint]] = {}
    for pod in pods:
        addresses = _addresses(pod, family)
        if addresses:
            zone = zones.get((pod.spec.node_name if pod.spec else None) or "")
            found.setdefault(_ports_of(service, pod), []).append(_endpoint(service, pod, addresses, zone))
    return found


def plan(
    service: Service,
    family: str,
    wanted: Mapping[Ports, list[Endpoint]],
    existing: Sequence[EndpointSlice],
    changes: Changes,
) -> None:
    """The fewest writes that make the slices of one address type hold what is wanted."""
    by_ports: dict[Ports, list[EndpointSlice]] = {}
    for slice_ in sorted(existing, key=key_of):
        if _is_owned(slice_, service):
            by_ports.setdefault(_ports_in(slice_), []).append(slice_)
        else:
            changes.delete.append(slice_)  # Of an older Service of this name.
    # A Service always has a slice, so that its readers can tell "no endpoints" from "not known yet".
    wanted = wanted or {next(iter(by_ports), ()): []}
    for ports, endpoints in wanted.items():
        _plan_ports(service, family, ports, endpoints, by_ports.pop(ports, []), changes)
    for leftover in by_ports.values():
        changes.delete += leftover


def _plan_ports(
    service: Service,
    family: str,
    ports: Ports,
    endpoints: Sequence[Endpoint],
    existing: Sequence[EndpointSlice],
    changes: Changes,
) -> None:
    missing = {_identity(endpoint): endpoint for endpoint in endpoints}
    empty_ports = () if not endpoints else ports
    kept: list[tuple[EndpointSlice, list[Endpoint]]] = []
    for slice_ in existing:
        stay = [_as_hinted(missing.pop(_identity(endpoint), None), endpoint) for endpoint in slice_.endpoints]
        kept.append((slice_, [endpoint for endpoint in stay if endpoint is not None]))

    rest = list(missing.values())
    # The fullest of those that are written anyway first, so that few slices are nearly empty.
    for slice_, inside in sorted(kept, key=lambda pair: -len(pair[1])):
        if inside != slice_.endpoints:
            _fill(inside, rest)
    added: list[list[Endpoint]] = []
    while rest:
        fits = [inside for _, inside in kept if len(rest) < ENDPOINTS_MAX >= len(inside) + len(rest)]
        if not fits:
            added.append([])
        _fill(max(fits, key=len) if fits else added[-1], rest)

    has_one = bool(added)
    for slice_, inside in kept:
        if not inside and (endpoints or has_one):
            changes.delete.append(slice_)
            continue
        has_one = True
        renewed = _slice(service, family, empty_ports, inside, slice_)
        if renewed != slice_:
            changes.update.append(renewed)
        else:
            changes.unchanged.append(slice_)
    if not has_one:
        added.append([])
    changes.create += [_slice(service, family, empty_ports, inside, None) for inside in added]


def reuse(service: Service, changes: Changes) -> None:
    """A slice that would go takes in what a new one would hold: one write instead of two."""
    for going in list(changes.delete):
        if changes.create and _is_owned(going, service):
            new = changes.create.pop()
            metadata = replace(going.metadata, labels=new.metadata.labels)
            changes.update.append(replace(new, metadata=metadata))
            changes.delete.remove(going)


def _is_owned(slice_: EndpointSlice, service: Service) -> bool:
    return any(each.uid == service.metadata.uid for each in slice_.metadata.owner_references)


def _as_hinted(wanted: Endpoint | None, before: Endpoint) -> Endpoint | None:
    """Hints are no reason to write a slice; whether they still fit is looked at later."""
    return replace(wanted, hints=before.hints) if wanted is not None and before.hints else wanted


def _fill(inside: list[Endpoint], rest: list[Endpoint]) -> None:
    """Move from `rest` what there is room for."""
    room = ENDPOINTS_MAX - len(inside)
    inside += rest[:room]
    del rest[:room]


def _slice(
    service: Service, family: str, ports: Ports, endpoints: list[Endpoint], old: EndpointSlice | None
) -> EndpointSlice:
    """A slice of the service, new or as `old` should become."""
    own = {SERVICE_NAME: service.metadata.name or "", MANAGED_BY: MANAGER}
    labels = {key: value for key, value in service.metadata.labels.items() if key != HEADLESS} | own
    if is_headless(service):
        labels[HEADLESS] = ""
    if old is not None:
        metadata = replace(old.metadata, labels=labels)
    else:
        metadata = ObjectMeta(
            generate_name=f"{service.metadata.name}-",
            namespace=service.metadata.namespace,
            labels=labels,
            owner_references=[owner_reference(service)],
        )
    return EndpointSlice(
        metadata=metadata,
        address_type=family,
        endpoints=endpoints,
        ports=[
            EndpointPort(name=name, port=number, protocol=protocol, app_protocol=application)
            for name, number, protocol, application in ports
        ],
    )


def _endpoint(service: Service, pod: Pod, addresses: list[str], zone: str | None) -> Endpoint:
    serving = is_ready(pod)
    terminating = pod.metadata.deletion_timestamp is not None
    publish = bool(service.spec and service.spec.publish_not_ready_addresses)
    return Endpoint(
        addresses=addresses,
        conditions=EndpointConditions(
            ready=publish or (serving and not terminating), serving=serving, terminating=terminating
        ),
        hostname=hostname_for(service, pod),
        node_name=(pod.spec.node_name if pod.spec else None) or None,
        target_ref=reference_to(pod),
        zone=zone,
    )


def _ports_of(service: Service, pod: Pod) -> Ports:
    assert service.spec is not None
    return tuple(
        (port.name or "", number, port.protocol or "TCP", port.app_protocol)
        for port in service.spec.ports
        if (number := target_port(pod, port)) is not None
    )


def _ports_in(slice_: EndpointSlice) -> Ports:
    return tuple((port.name or "", port.port, port.protocol or "TCP", port.app_protocol) for port in slice_.ports)


def _addresses(pod: Pod, family: str) -> list[str]:
    assert pod.status is not None
    all_ = [ip.ip for ip in pod.status.pod_ips] or [pod.status.pod_ip or ""]
    version = 6 if family == "IPv6" else 4
    return [address for address in all_ if ip_address(address).version == version]


def _identity(endpoint: Endpoint) -> tuple[object, ...]:
    """Which endpoint it is, whatever its conditions."""
    return (*endpoint.addresses, endpoint.target_ref.uid if endpoint.target_ref else None, endpoint.node_name)


def service_key(manager: str) -> Callable[[EndpointSlice], str | None]:
    """The key of the Service that a slice is of, for slices that `manager` looks after."""

    def key(slice_: EndpointSlice) -> str | None:
        labels = slice_.metadata.labels
        if labels.get(MANAGED_BY) != manager or SERVICE_NAME not in labels:
            return None
        return f"{slice_.metadata.namespace}/{labels[SERVICE_NAME]}"

    return key
