"""The environment of a container: env, envFrom, references, service links, and $(VAR) in them and in commands.

Later entries win: service links, then envFrom in order, then env in order. `$(NAME)` takes what stands before it,
`$$` is a dollar sign, and a reference to nothing stays as it is written.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from msgspec import Struct, field

from knarr.api.core.v1 import ConfigMap, Container, EnvVar, EnvVarSource, Pod, Secret, Service
from knarr.node.fields import UnknownField, field_value, resource_value

_REFERENCE = re.compile(r"\$(?:\$|\(([^)]*)\))")
MASTER_SERVICE = ("default", "kubernetes")
"""Its variables are in every container, so that a client in a pod finds the API server."""


class ConfigurationError(Exception):
    """The container can't be configured: what CreateContainerConfigError shows as its message."""


class Surroundings(Struct, frozen=True):
    """What a container's configuration may refer to."""

    config_map: Callable[[str], ConfigMap | None]
    """A ConfigMap of the pod's namespace, by name."""
    secret: Callable[[str], Secret | None]
    services: Sequence[Service] = ()
    """Those of the pod's namespace, and the API server's own."""
    pod_ips: Sequence[str] = ()
    host_ips: Sequence[str] = ()
    allocatable: Mapping[str, Any] = field(default_factory=dict)


def environment(pod: Pod, container: Container, around: Surroundings) -> dict[str, str]:
    """All variables. ConfigurationError when a reference that isn't optional leads nowhere."""
    assert pod.spec
    links = service_variables(pod, around.services)
    given: dict[str, str] = {}
    for source in container.env_from:
        given.update(_from_source(source, around))
    for variable in container.env:
        value = _value(pod, container, variable, around, {**links, **given})
        if value is not None:
            given[variable.name] = value
    return {**links, **given}


def expand(text: str, variables: Mapping[str, str]) -> str:
    """`text` with its references replaced."""

    def replaced(match: re.Match[str]) -> str:
        name = match[1]
        return "$" if name is None else variables.get(name, match[0])

    return _REFERENCE.sub(replaced, text)


def expand_all(texts: Iterable[str], variables: Mapping[str, str]) -> list[str]:
    return [expand(text, variables) for text in texts]


def expand_strictly(text: str, variables: Mapping[str, str]) -> str:
    """As `expand`, for subPathExpr: a reference to nothing is an error."""
    for match in _REFERENCE.finditer(text):
        if match[1] is not None and match[1] not in variables:
            raise ConfigurationError(f'missing value for "{match[1]}"')
    return expand(text, variables)


def service_variables(pod: Pod, services: Iterable[Service]) -> dict[str, str]:
    """{NAME}_SERVICE_HOST and its kin, of the services in the pod's namespace if it wants them."""
    assert pod.spec
    wanted: dict[str, Service] = {}
    links = pod.spec.enable_service_links is not False
    for service in services:
        where = (service.metadata.namespace or "", service.metadata.name or "")
        if where == MASTER_SERVICE:
            wanted.setdefault(where[1], service)
        if links and where[0] == pod.metadata.namespace:
            wanted[where[1]] = service
    variables: dict[str, str] = {}
    for name in sorted(wanted):
        variables.update(_link(wanted[name]))
    return variables


def _link(service: Service) -> dict[str, str]:
    spec = service.spec
    if spec is None or not spec.ports or not spec.cluster_ip or spec.cluster_ip == "None":
        return {}
    prefix = (service.metadata.name or "").upper().replace("-", "_")
    address, first = spec.cluster_ip, spec.ports[0]
    host = f"[{address}]" if ":" in address else address
    variables = {f"{prefix}_SERVICE_HOST": address, f"{prefix}_SERVICE_PORT": str(first.port)}
    for port in spec.ports:
        if port.name:
            variables[f"{prefix}_SERVICE_PORT_{port.name.upper().replace('-', '_')}"] = str(port.port)
    variables[f"{prefix}_PORT"] = f"{(first.protocol or 'TCP').lower()}://{host}:{first.port}"
    for port in spec.ports:
        protocol = port.protocol or "TCP"
        one = f"{prefix}_PORT_{port.port}_{protocol}"
        variables[one] = f"{protocol.lower()}://{host}:{port.port}"
        variables[f"{one}_PROTO"] = protocol.lower()
        variables[f"{one}_PORT"] = str(port.port)
        variables[f"{one}_ADDR"] = address
    return variables


def _from_source(source: Any, around: Surroundings) -> dict[str, str]:
    prefix = source.prefix or ""
    if source.config_map_ref is not None:
        reference = source.config_map_ref
        config_map = around.config_map(reference.name or "")
        if config_map is None:
            return _absent(reference.optional, f'configmap "{reference.name}" not found')
        return {f"{prefix}{key}": value for key, value in config_map.data.items()}
    if source.secret_ref is not None:
        reference = source.secret_ref
        secret = around.secret(reference.name or "")
        if secret is None:
            return _absent(reference.optional, f'secret "{reference.name}" not found')
        return {f"{prefix}{key}": _text(value) for key, value in secret.data.items()}
    return {}


def _value(
    pod: Pod, container: Container, variable: EnvVar, around: Surroundings, variables: Mapping[str, str]
) -> str | None:
    """The value of one variable; None when its optional source is absent."""
    if variable.value_from is None:
        return expand(variable.value or "", variables)
    try:
        return _referred(pod, container, variable.value_from, around)
    except UnknownField as error:
        raise ConfigurationError(str(error)) from error


def _referred(pod: Pod, container: Container, source: EnvVarSource, around: Surroundings) -> str | None:
    namespace = pod.metadata.namespace
    if source.field_ref is not None:
        return field_value(pod, source.field_ref.field_path, pod_ips=around.pod_ips, host_ips=around.host_ips)
    if source.resource_field_ref is not None:
        return resource_value(pod, source.resource_field_ref, container, around.allocatable)
    if source.config_map_key_ref is not None:
        at = source.config_map_key_ref
        config_map = around.config_map(at.name or "")
        if config_map is None:
            return _none(at.optional, f'configmap "{at.name}" not found')
        if at.key not in config_map.data:
            return _none(at.optional, f"couldn't find key {at.key} in ConfigMap {namespace}/{at.name}")
        return config_map.data[at.key]
    if source.secret_key_ref is not None:
        of = source.secret_key_ref
        secret = around.secret(of.name or "")
        if secret is None:
            return _none(of.optional, f'secret "{of.name}" not found')
        if of.key not in secret.data:
            return _none(of.optional, f"couldn't find key {of.key} in Secret {namespace}/{of.name}")
        return _text(secret.data[of.key])
    raise ConfigurationError("fileKeyRef is not served by this node")


def _none(optional: bool | None, message: str) -> str | None:
    if not optional:
        raise ConfigurationError(message)
    return None


def _absent(optional: bool | None, message: str) -> dict[str, str]:
    _none(optional, message)
    return {}


def _text(value: bytes) -> str:
    return value.decode("utf-8", "surrogateescape")
