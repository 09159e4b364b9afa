"""The pods behind a Service: which services a pod serves, whether it counts, and which port is meant."""

from __future__ import annotations

from collections.abc import Iterable

from knarr.api.core.pod_state import is_ready, is_terminal
from knarr.api.core.service_selection import has_pods, selects
from knarr.api.core.v1 import ObjectReference, Pod, Service, ServicePort
from knarr.client.informer import Informer, key_of

HEADLESS = "service.kubernetes.io/headless"


def is_headless(service: Service) -> bool:
    return service.spec is not None and service.spec.cluster_ip in (None, "", "None")


def services_woken(services: Informer[Service], old: Pod | None, new: Pod | None) -> Iterable[str]:
    """The services to which a pod's change matters."""
    if old is not None and new is not None and _facts(old) == _facts(new):
        return
    pods = [pod for pod in (old, new) if pod is not None and pod.metadata.labels]
    if not pods:
        return
    for service in services.by_index("namespace", pods[0].metadata.namespace or ""):
        if has_pods(service) and any(selects(service, pod.metadata.labels) for pod in pods):
            yield key_of(service)


def counts(service: Service, pod: Pod, *, terminating: bool) -> bool:
    """It has an address, and hasn't ended; `terminating` says whether pods on their way out count."""
    if pod.status is None or not pod.status.pod_ip or is_terminal(pod):
        return False
    return terminating or pod.metadata.deletion_timestamp is None


def hostname_for(service: Service, pod: Pod) -> str | None:
    """The pod's own name in the service's DNS domain, if it wants one there."""
    if pod.spec and pod.spec.hostname and pod.spec.subdomain == service.metadata.name:
        return pod.spec.hostname
    return None


def target_port(pod: Pod, port: ServicePort) -> int | None:
    """The number on this pod that a service port means; None when the pod has no port of that name."""
    target = port.target_port
    if target is None or target in (0, ""):
        return port.port
    if isinstance(target, int):
        return target
    if pod.spec is None:
        return None
    sidecars = [container for container in pod.spec.init_containers if container.restart_policy == "Always"]
    for container in [*pod.spec.containers, *sidecars]:
        for offered in container.ports:
            if offered.name == target and (offered.protocol or "TCP") == (port.protocol or "TCP"):
                return offered.container_port
    return None


def reference_to(pod: Pod) -> ObjectReference:
    return ObjectReference(kind="Pod", namespace=pod.metadata.namespace, name=pod.metadata.name, uid=pod.metadata.uid)


def _facts(pod: Pod) -> tuple[object, ...]:
    """All of a pod that endpoints depend on."""
    status, spec = pod.status, pod.spec
    return (
        pod.metadata.uid,
        pod.metadata.deletion_timestamp is None,
        pod.metadata.labels,
        is_ready(pod),
        is_terminal(pod),
        [ip.ip for ip in status.pod_ips] if status else None,
        status.pod_ip if status else None,
        (spec.node_name, spec.hostname, spec.subdomain) if spec else None,
    )
