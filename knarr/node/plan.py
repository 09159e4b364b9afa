"""What is to be done for a pod, from what it asks for and what there is: values in, values out.

The order of a pod's life: a sandbox; init containers one after the other, each to its successful end (a sidecar: until
it has started); then the containers, each started when the one before it was. A container that ended is started again
as its restart policy says, after its back-off. When no container is to run again, the pod is over.
"""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct, field

from knarr.api.core.v1 import Container, PodSpec
from knarr.node.resources import is_sidecar
from knarr.node.runtime import contract
from knarr.node.runtime.contract import ContainerState


class Seen(Struct, frozen=True):
    """What there is of one container of the spec."""

    newest: contract.Container | None = None
    """Its latest run, in whichever sandbox."""
    here: bool = False
    """That run is in the sandbox of now."""
    started: bool = False
    """It runs, and its startup probe (if any) has succeeded."""
    kill: str = ""
    """Why it must be ended (a probe failed): the text of the event."""
    busy: bool = False
    """It is just being started or ended."""
    starting: bool = False
    """Its start isn't through: it may run already, and its postStart hook still be at it."""
    not_before_s: float = 0.0
    """Back-off: it is not started again before."""


class Plan(Struct):
    """The next steps. What isn't in it is as it should be, or has to wait for something."""

    over: bool = False
    """No container is to run any more: end what still runs, and the sandbox."""
    sandbox: bool = False
    """A new sandbox is needed first."""
    start: str = ""
    """The container to start."""
    ephemeral: list[str] = field(default_factory=list)
    """Ephemeral containers to start: they wait for nobody."""
    kill: dict[str, str] = field(default_factory=dict)
    """Containers to end, and why."""
    wait_until_s: dict[str, float] = field(default_factory=dict)
    """Containers that back off, and until when."""


def plan(spec: PodSpec, seen: Mapping[str, Seen], *, has_sandbox: bool, now_s: float) -> Plan:
    """The next steps for a pod that is to run."""
    if is_over(spec, seen):
        return Plan(over=True)
    if not has_sandbox:
        return Plan(sandbox=True)
    steps = Plan()
    for container in (*spec.init_containers, *spec.containers):
        one = seen[container.name]
        if one.kill and running(one) and not one.busy:
            steps.kill[container.name] = one.kill
    wanted = _to_start(spec, seen)
    ordered = [container.name for container in (*spec.init_containers, *spec.containers)]
    under_way = any(seen[name].starting or (seen[name].busy and not running(seen[name])) for name in ordered)
    for name in wanted:
        if seen[name].not_before_s > now_s:
            steps.wait_until_s[name] = seen[name].not_before_s
        elif not steps.start and not under_way:
            steps.start = name
    for name in (added.name for added in spec.ephemeral_containers):
        one = seen[name]
        if one.busy or (one.newest is not None and one.newest.state is not ContainerState.CREATED):
            continue
        if one.not_before_s > now_s:
            steps.wait_until_s[name] = one.not_before_s
        else:
            steps.ephemeral.append(name)
    return steps


def is_over(spec: PodSpec, seen: Mapping[str, Seen]) -> bool:
    """Whether nothing of the pod will run again."""
    if failed_init(spec, seen) is not None:
        return True
    return bool(spec.containers) and all(
        done(seen[container.name]) and not restarts(spec, container, seen[container.name])
        for container in spec.containers
    )


def failed_init(spec: PodSpec, seen: Mapping[str, Seen]) -> Container | None:
    """The init container whose failure ends the pod."""
    for container in spec.init_containers:
        one = seen[container.name]
        if not is_sidecar(container) and failed(one) and not restarts(spec, container, one):
            return container
    return None


def restarts(spec: PodSpec, container: Container, one: Seen) -> bool:
    """Whether a container that has ended is to be started again."""
    code = one.newest.exit_code if one.newest is not None and one.newest.exit_code is not None else 0
    for rule in container.restart_policy_rules:
        on = rule.exit_codes
        if on is not None and rule.action == "Restart" and (code in on.values) == (on.operator == "In"):
            return True
    policy = container.restart_policy or spec.restart_policy or "Always"
    is_init = any(container is other for other in spec.init_containers)
    if policy == "Always" and is_init and not is_sidecar(container):
        return code != 0
    return policy == "Always" or (policy == "OnFailure" and code != 0)


def running(one: Seen) -> bool:
    return one.here and one.newest is not None and one.newest.state is ContainerState.RUNNING


def done(one: Seen) -> bool:
    """It ran, and has ended."""
    return one.newest is not None and one.newest.state is ContainerState.EXITED and not one.busy


def failed(one: Seen) -> bool:
    return done(one) and one.newest is not None and one.newest.exit_code != 0


def _to_start(spec: PodSpec, seen: Mapping[str, Seen]) -> list[str]:
    """What should run and doesn't, in order."""
    wanted: list[str] = []
    begun = _containers_begun(spec, seen)
    last_begun = max(
        (number for number, container in enumerate(spec.init_containers) if seen[container.name].here), default=-1
    )
    for number, container in enumerate(spec.init_containers):
        one = seen[container.name]
        was_passed = begun or number < last_begun
        if is_sidecar(container):
            if _startable(one):
                wanted.append(container.name)
        elif not was_passed and _startable(one) and not _through(container, one):
            wanted.append(container.name)
        if not was_passed and not _through(container, one):
            return wanted
    for container in spec.containers:
        one = seen[container.name]
        if _startable(one) and (not done(one) or restarts(spec, container, one)):
            wanted.append(container.name)
    return wanted


def _startable(one: Seen) -> bool:
    return not running(one) and not one.busy


def _through(container: Container, one: Seen) -> bool:
    """The next may begin."""
    if is_sidecar(container):
        return running(one) and one.started
    return one.here and done(one) and not failed(one)


def _containers_begun(spec: PodSpec, seen: Mapping[str, Seen]) -> bool:
    return any(seen[container.name].here for container in spec.containers)
