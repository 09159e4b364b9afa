"""What is next for a pod, as tables."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from knarr.api.core.v1 import PodSpec
from knarr.node.plan import Plan, Seen, is_over, plan
from knarr.node.runtime.contract import Container, ContainerState

CREATED, RUNNING, EXITED = ContainerState.CREATED, ContainerState.RUNNING, ContainerState.EXITED


def spec(*containers: str, inits: tuple[str, ...] = (), policy: str = "Always") -> PodSpec:
    """Containers by name; an init container whose name begins with "side" is a sidecar."""
    listed = [
        {"name": name, "restartPolicy": "Always"} if name.startswith("side") else {"name": name} for name in inits
    ]
    return msgspec.convert(
        {
            "containers": [{"name": name} for name in containers],
            "initContainers": listed,
            "restartPolicy": policy,
        },
        PodSpec,
    )


def run(state: ContainerState, code: int | None = None) -> Container:
    return Container("id", "sandbox", "name", 0, "", "", state, 0.0, exit_code=code)


NONE = Seen()
UP = Seen(run(RUNNING), here=True, started=True)
NOT_STARTED = Seen(run(RUNNING), here=True)
DONE = Seen(run(EXITED, 0), here=True)
CRASHED = Seen(run(EXITED, 1), here=True)
STARTING = Seen(busy=True)
ENDING = Seen(run(RUNNING), here=True, started=True, busy=True)
ELSEWHERE = Seen(run(EXITED, 255))
"""It ran in a sandbox that is gone."""


def next_of(wanted: PodSpec, has_sandbox: bool = True, now_s: float = 100.0, **seen: Seen) -> Plan:
    every = {each.name: seen.get(each.name, NONE) for each in (*wanted.init_containers, *wanted.containers)}
    return plan(wanted, every, has_sandbox=has_sandbox, now_s=now_s)


@pytest.mark.parametrize(
    ("inits", "seen", "start"),
    [
        # Containers start one after the other, in their order.
        ((), {}, "a"),
        ((), {"a": STARTING}, ""),
        ((), {"a": UP}, "b"),
        ((), {"a": NOT_STARTED}, "b"),
        ((), {"a": UP, "b": UP}, ""),
        ((), {"a": ENDING}, "b"),
        # One that has crashed doesn't keep the others from starting.
        ((), {"a": Seen(run(EXITED, 1), here=True, not_before_s=200)}, "b"),
        # Init containers come first, each to its end.
        (("x", "y"), {}, "x"),
        (("x", "y"), {"x": NOT_STARTED}, ""),
        (("x", "y"), {"x": DONE}, "y"),
        (("x", "y"), {"x": CRASHED}, "x"),
        (("x", "y"), {"x": DONE, "y": DONE}, "a"),
        # The first may have been swept away by then.
        (("x", "y"), {"y": DONE}, "a"),
        (("x", "y"), {"a": UP}, "b"),
        # A sidecar must have started, not ended; it is started again whatever else there is.
        (("side", "x"), {}, "side"),
        (("side", "x"), {"side": NOT_STARTED}, ""),
        (("side", "x"), {"side": UP}, "x"),
        (("side", "x"), {"side": CRASHED, "x": NOT_STARTED}, "side"),
        (("side", "x"), {"side": DONE, "a": UP, "b": UP}, "side"),
        # A new sandbox begins from the beginning.
        (("x",), {"x": ELSEWHERE, "a": ELSEWHERE, "b": ELSEWHERE}, "x"),
        # One that was created and not started is started now.
        ((), {"a": Seen(run(CREATED), here=True)}, "a"),
    ],
)
def test_what_is_started_next(inits: tuple[str, ...], seen: dict[str, Seen], start: str) -> None:
    assert next_of(spec("a", "b", inits=inits), **seen).start == start


def test_a_sandbox_comes_first() -> None:
    assert next_of(spec("a"), has_sandbox=False).sandbox
    assert not next_of(spec("a"), has_sandbox=False).start


def test_back_off_is_waited_for() -> None:
    crashed = Seen(run(EXITED, 1), here=True, not_before_s=120.0)
    steps = next_of(spec("a"), a=crashed)
    assert (steps.start, steps.wait_until_s) == ("", {"a": 120.0})
    assert next_of(spec("a"), a=crashed, now_s=120.0).start == "a"


def test_a_failed_probe_ends_a_running_container_once() -> None:
    sick = Seen(run(RUNNING), here=True, started=True, kill="why")
    assert next_of(spec("a"), a=sick).kill == {"a": "why"}
    assert not next_of(spec("a"), a=Seen(run(RUNNING), here=True, kill="why", busy=True)).kill


@pytest.mark.parametrize(
    ("policy", "seen", "over"),
    [
        ("Always", {"a": DONE}, False),
        ("OnFailure", {"a": DONE}, True),
        ("OnFailure", {"a": CRASHED}, False),
        ("Never", {"a": CRASHED}, True),
        ("Never", {"a": UP}, False),
        ("Never", {"a": ELSEWHERE}, True),
        ("Never", {}, False),
        ("Never", {"x": CRASHED}, True),
        ("OnFailure", {"x": CRASHED}, False),
        ("Always", {"x": CRASHED}, False),
        # A sidecar doesn't hold a pod up.
        ("Never", {"side": UP, "a": DONE}, True),
        ("Never", {"side": CRASHED, "a": UP}, False),
    ],
)
def test_when_a_pod_is_over(policy: str, seen: dict[str, Seen], over: bool) -> None:
    wanted = spec("a", inits=("side", "x"), policy=policy)
    every = {name: seen.get(name, NONE) for name in ("side", "x", "a")}
    assert is_over(wanted, every) is over


@pytest.mark.parametrize(
    ("container", "code", "over"),
    [
        ({"restartPolicy": "Never"}, 1, True),
        ({"restartPolicy": "OnFailure"}, 1, False),
        ({"restartPolicyRules": [{"action": "Restart", "exitCodes": {"operator": "In", "values": [42]}}]}, 42, False),
        ({"restartPolicyRules": [{"action": "Restart", "exitCodes": {"operator": "In", "values": [42]}}]}, 1, True),
        ({"restartPolicyRules": [{"action": "Restart", "exitCodes": {"operator": "NotIn", "values": [42]}}]}, 1, False),
    ],
)
def test_a_containers_own_restart_rules(container: dict[str, Any], code: int, over: bool) -> None:
    wanted = msgspec.convert({"containers": [{"name": "a", **container}], "restartPolicy": "Never"}, PodSpec)
    assert is_over(wanted, {"a": Seen(run(EXITED, code), here=True)}) is over
