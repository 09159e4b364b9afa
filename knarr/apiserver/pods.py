"""The subresources of pods that do something: binding, log, exec, attach (port-forward: port_forward.py)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from datetime import datetime

from knarr.api.core.v1 import Binding, Pod, PodCondition, PodStatus
from knarr.api.errors import BadRequest, Conflict, ServiceUnavailable
from knarr.api.types import replace
from knarr.apiserver.requests import flag, number
from knarr.client.channels import COMMAND_SUBPROTOCOLS, serve_command
from knarr.client.nodes import LogOptions, NodeBackend, Streams
from knarr.client.transport import Answer, Request, Socket, Upgrade
from knarr.clock import Clock, utc


def bound(pod: Pod, binding: Binding, now_s: float) -> Pod:
    """A changed copy of a pod, on its node. Raises Conflict when it is on one already."""
    name = pod.metadata.name or ""
    if pod.metadata.deletion_timestamp:
        raise Conflict.of("", "pods/binding", name, f"pod {name} is being deleted, cannot be assigned to a host")
    if pod.spec and pod.spec.node_name:
        raise Conflict.of("", "pods/binding", name, f'pod {name} is already assigned to node "{pod.spec.node_name}"')
    if pod.spec and pod.spec.scheduling_gates:
        raise Conflict.of("", "pods/binding", name, f"pod {name} has non-empty .spec.schedulingGates")
    if binding.metadata.uid and binding.metadata.uid != pod.metadata.uid:
        raise Conflict.of("", "pods/binding", name, "the UID in the binding is not that of the pod")
    assert pod.spec
    status = pod.status or PodStatus()
    scheduled = PodCondition(type="PodScheduled", status="True", last_transition_time=utc(now_s))
    others = [condition for condition in status.conditions if condition.type != "PodScheduled"]
    return replace(
        pod,
        metadata=replace(
            pod.metadata,
            annotations={**pod.metadata.annotations, **binding.metadata.annotations},
            labels={**pod.metadata.labels, **binding.metadata.labels},
        ),
        spec=replace(pod.spec, node_name=binding.target.name),
        # Where it was to go is where it is (KEP-5278).
        status=replace(status, conditions=[*others, scheduled], nominated_node_name=None),
    )


def container_of(pod: Pod, asked: str, what: str) -> str:
    """The container that a request is about. Raises BadRequest with the choice."""
    name, spec = pod.metadata.name, pod.spec
    assert spec
    containers = [container.name for container in spec.containers]
    init = [container.name for container in spec.init_containers]
    if asked:
        if asked not in (*containers, *init, *(container.name for container in spec.ephemeral_containers)):
            raise BadRequest(f"container {asked} is not valid for pod {name}")
        return asked
    default = pod.metadata.annotations.get("kubectl.kubernetes.io/default-container")
    if default in containers and what != "log":
        return default
    if len(containers) == 1:
        return containers[0]
    choice = f"choose one of: [{' '.join(containers)}]"
    if init:
        choice += f" or one of the init containers: [{' '.join(init)}]"
    raise BadRequest(f"a container name must be specified for pod {name}, {choice}")


def log_options(pod: Pod, query: Mapping[str, str], clock: Clock) -> LogOptions:
    """Raises BadRequest."""
    since_s: float | None = None
    if (seconds := number(query, "sinceSeconds")) is not None:
        if seconds < 1:
            raise BadRequest("sinceSeconds must be greater than 0")
        since_s = clock.time_s() - seconds
    if since := query.get("sinceTime"):
        try:
            since_s = datetime.fromisoformat(since).timestamp()
        except ValueError:
            raise BadRequest(f'sinceTime: invalid value "{since}": must be an RFC 3339 time') from None
    tail, limit = number(query, "tailLines"), number(query, "limitBytes")
    if tail is not None and tail < 0:
        raise BadRequest("tailLines must be greater than or equal to 0")
    if limit is not None and limit < 1:
        raise BadRequest("limitBytes must be greater than 0")
    return LogOptions(
        container=container_of(pod, query.get("container", ""), "log"),
        follow=flag(query, "follow"),
        previous=flag(query, "previous"),
        tail_lines=tail,
        since_s=since_s,
        timestamps=flag(query, "timestamps"),
        limit_bytes=limit,
    )


async def log(pod: Pod, request: Request, nodes: NodeBackend, clock: Clock) -> Answer:
    """The log as plain text; the first chunk is awaited, so that faults have a status code."""
    if not (pod.spec and pod.spec.node_name):
        raise BadRequest(f"pod {pod.metadata.name} does not have a host assigned")
    chunks = nodes.logs(pod, log_options(pod, request.query, clock)).__aiter__()
    headers = {"content-type": "text/plain"}
    if not flag(request.query, "follow"):
        body = b"".join([chunk async for chunk in _all(chunks)])
        return Answer(200, headers, body)
    return Answer(200, headers, stream=_all(chunks))


async def _all(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    async for chunk in chunks:
        yield chunk


def remote_command(pod: Pod, what: str, request: Request, nodes: NodeBackend) -> Answer:
    """exec and attach, over a WebSocket."""
    query = request.query
    container = container_of(pod, query.get("container", ""), what)
    command = request.repeated.get("command") or ([query["command"]] if "command" in query else [])
    tty, stdin = flag(query, "tty"), flag(query, "stdin")
    if what == "exec" and not command:
        raise BadRequest("you must specify at least one command for the container")

    async def begin() -> Streams:
        if what == "exec":
            return await nodes.exec(pod, container, command, tty=tty, stdin=stdin)
        return await nodes.attach(pod, container)

    async def serve(socket: Socket) -> None:
        await serve_command(socket, begin, reports_exit=what == "exec")

    return Answer(101, {}, upgrade=Upgrade(COMMAND_SUBPROTOCOLS, serve))


def need(nodes: NodeBackend | None) -> NodeBackend:
    if nodes is None:
        raise ServiceUnavailable("this API server reaches no nodes")
    return nodes
