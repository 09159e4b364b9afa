"""From a container of the API to one of the runtime, and from a pod to its sandbox."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from knarr.api.core.v1 import Container, Pod
from knarr.node.config import NodeConfig
from knarr.node.environment import expand_all
from knarr.node.name_files import domain_name, host_name
from knarr.node.resources import cgroup_parent, container_resources, oom_score_adj, pod_bounds
from knarr.node.runtime.contract import ContainerConfig, Mount, PortMapping, SandboxConfig, SecurityContext

NAME_LABEL = "io.kubernetes.pod.name"
NAMESPACE_LABEL = "io.kubernetes.pod.namespace"
UID_LABEL = "io.kubernetes.pod.uid"


def sandbox_config(pod: Pod, attempt: int, config: NodeConfig) -> SandboxConfig:
    """What the containers of the pod share."""
    spec, metadata = pod.spec, pod.metadata
    assert spec
    uid, name, namespace = metadata.uid or "", metadata.name or "", metadata.namespace or ""
    bounds = pod_bounds(spec)
    sysctls = spec.security_context.sysctls if spec.security_context else []
    return SandboxConfig(
        pod_uid=uid,
        pod_name=name,
        pod_namespace=namespace,
        attempt=attempt,
        hostname=_host_name(pod, config),
        log_directory=str(config.log_folder(namespace, name, uid)),
        cgroup_parent=cgroup_parent(pod),
        host_network=bool(spec.host_network),
        host_pid=bool(spec.host_pid),
        host_ipc=bool(spec.host_ipc),
        share_processes=bool(spec.share_process_namespace),
        labels={**metadata.labels, NAME_LABEL: name, NAMESPACE_LABEL: namespace, UID_LABEL: uid},
        sysctls={sysctl.name: sysctl.value for sysctl in sysctls},
        port_mappings=port_mappings(pod),
        cpu_quota_us=bounds.cpu_quota_us,
        cpu_shares=bounds.cpu_shares,
        memory_limit_bytes=bounds.memory_limit_bytes,
    )


def _host_name(pod: Pod, config: NodeConfig) -> str:
    assert pod.spec
    if pod.spec.host_network:
        return config.name
    full = domain_name(pod, config.cluster_domain) if pod.spec.set_hostname_as_fqdn else ""
    return full or host_name(pod)


def port_mappings(pod: Pod) -> tuple[PortMapping, ...]:
    """hostPorts of all containers; in the host's network there is nothing to map."""
    spec = pod.spec
    assert spec
    if spec.host_network:
        return ()
    return tuple(
        PortMapping(port.protocol or "TCP", port.container_port, port.host_port, port.host_ip or "")
        for container in (*spec.init_containers, *spec.containers)
        for port in container.ports
        if port.host_port
    )


def container_config(
    pod: Pod,
    container: Container,
    attempt: int,
    variables: Mapping[str, str],
    mounts: Sequence[Mount],
    node_memory_bytes: int,
    target_id: str = "",
) -> ContainerConfig:
    """What the runtime is asked to create. `target_id`: the running container whose processes it is to see."""
    assert pod.spec
    return ContainerConfig(
        name=container.name,
        attempt=attempt,
        image=container.image or "",
        command=expand_all(container.command, variables),
        args=expand_all(container.args, variables),
        working_dir=container.working_dir or "",
        env=list(variables.items()),
        mounts=list(mounts),
        resources=container_resources(container),
        security=security_context(pod, container),
        tty=bool(container.tty),
        stdin=bool(container.stdin),
        stdin_once=bool(container.stdin_once),
        oom_score_adj=oom_score_adj(pod.spec, container, node_memory_bytes),
        target_id=target_id,
    )


def security_context(pod: Pod, container: Container) -> SecurityContext:
    """The container's own settings, over the pod's."""
    assert pod.spec
    of_pod, own = pod.spec.security_context, container.security_context
    user, group, non_root = (
        own.run_as_user if own else None,
        own.run_as_group if own else None,
        own.run_as_non_root if own else None,
    )
    groups: tuple[int, ...] = ()
    if of_pod is not None:
        user = of_pod.run_as_user if user is None else user
        group = of_pod.run_as_group if group is None else group
        non_root = of_pod.run_as_non_root if non_root is None else non_root
        groups = tuple(of_pod.supplemental_groups)
        if of_pod.fs_group is not None:
            groups = (*groups, of_pod.fs_group)
    capabilities = own.capabilities if own else None
    return SecurityContext(
        run_as_user=user,
        run_as_group=group,
        run_as_non_root=bool(non_root),
        supplemental_groups=groups,
        privileged=bool(own and own.privileged),
        read_only_root=bool(own and own.read_only_root_filesystem),
        no_new_privileges=own is not None and own.allow_privilege_escalation is False,
        add_capabilities=tuple(capabilities.add) if capabilities else (),
        drop_capabilities=tuple(capabilities.drop) if capabilities else (),
    )
