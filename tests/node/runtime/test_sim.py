"""The hollow runtime: what it can be told to do, in time that is moved by hand."""

from __future__ import annotations

import asyncio
import time

import pytest

from knarr.node.runtime.contract import (
    ContainerConfig,
    ContainerState,
    PullFailure,
    RuntimeFailure,
    SandboxConfig,
)
from knarr.node.runtime.sim import LABEL, Behaviour, SimRuntime
from tests.node.runtime.conftest import HandClock, exit_of, start


def pod(name: str = "pod", **labels: str) -> SandboxConfig:
    labels = {f"{LABEL}{key.replace('_', '-')}": value for key, value in labels.items()}
    return SandboxConfig(name, name, "default", 0, name, f"/logs/{name}", f"pod{name}", labels=labels)


def container(image: str = "busybox") -> ContainerConfig:
    return ContainerConfig("main", 0, image)


async def test_a_container_runs_for_ever(clock: HandClock) -> None:
    runtime = SimRuntime(clock)
    sandbox = await runtime.run_sandbox(pod())
    identity = await start(runtime, sandbox.id, container())
    await clock.advance(1e9)
    seen = await runtime.container(identity)
    assert seen is not None
    assert seen.state is ContainerState.RUNNING


async def test_labels_say_when_and_how_a_container_ends(clock: HandClock) -> None:
    runtime = SimRuntime(clock)
    sandbox = await runtime.run_sandbox(pod(exit_after_s="2.5", exit_code="3"))
    identity = await start(runtime, sandbox.id, container())
    await clock.advance(2.4)
    assert (await runtime.containers())[0].state is ContainerState.RUNNING
    await clock.advance(0.2)
    seen = await exit_of(runtime, identity)
    assert (seen.exit_code, seen.finished_at_s - seen.started_at_s) == (3, pytest.approx(2.6))


async def test_an_end_that_fell_due_while_no_agent_was_there_is_told(clock: HandClock) -> None:
    runtime = SimRuntime(clock)
    sandbox = await runtime.run_sandbox(pod(exit_after_s="5"))
    identity = await start(runtime, sandbox.id, container())
    await runtime.close()
    await clock.advance(10)
    await runtime.start()
    await clock.advance(0)
    assert (await exit_of(runtime, identity)).exit_code == 0


async def test_a_slow_stop_takes_its_time_and_no_more_than_the_grace_period(clock: HandClock) -> None:
    runtime = SimRuntime(clock)
    sandbox = await runtime.run_sandbox(pod(stop_s="3"))
    for grace_s, takes_s, code in ((10.0, 3.0, 143), (1.0, 1.0, 137)):
        identity = await start(runtime, sandbox.id, container())
        stopping = asyncio.create_task(runtime.stop_container(identity, grace_s))
        await clock.advance(takes_s - 0.1)
        assert not stopping.done()
        await clock.advance(0.2)
        await stopping
        assert (await exit_of(runtime, identity)).exit_code == code


async def test_a_container_that_cannot_start(clock: HandClock) -> None:
    runtime = SimRuntime(clock)
    sandbox = await runtime.run_sandbox(pod(start_failure="no-such-command"))
    with pytest.raises(RuntimeFailure, match="no-such-command") as failure:
        await start(runtime, sandbox.id, container())
    assert failure.value.reason == "RunContainerError"
    (seen,) = await runtime.containers()
    assert (seen.state, seen.exit_code, seen.message) == (ContainerState.EXITED, 128, "no-such-command")


async def test_a_container_that_is_never_ready_fails_its_commands_until_told_otherwise(clock: HandClock) -> None:
    runtime = SimRuntime(clock, behaviour=lambda sandbox, container: Behaviour(ready=False))
    sandbox = await runtime.run_sandbox(pod())
    identity = await start(runtime, sandbox.id, container())
    assert (await runtime.exec_sync(identity, ["check"], 1)).exit_code == 1
    runtime.behave(identity, Behaviour(ready=True, cpu_cores=0.5))
    assert (await runtime.exec_sync(identity, ["check"], 1)).exit_code == 0
    await clock.advance(4)
    usage = await runtime.usage(identity)
    assert usage is not None
    assert usage.cpu_ns == 2_000_000_000


async def test_a_crash_from_outside_is_told(clock: HandClock) -> None:
    runtime = SimRuntime(clock)
    sandbox = await runtime.run_sandbox(pod())
    identity = await start(runtime, sandbox.id, container())
    runtime.end(identity, 137, oom_killed=True)
    seen = await exit_of(runtime, identity)
    assert (seen.exit_code, seen.oom_killed) == (137, True)


@pytest.mark.parametrize("image", ["does-not-exist", "example.com/app:missing", "does-not-exist-either:v1"])
async def test_images_that_cannot_be_had(clock: HandClock, image: str) -> None:
    runtime = SimRuntime(clock)
    assert await runtime.image(image) is None
    with pytest.raises(PullFailure, match="manifest unknown") as failure:
        await runtime.pull_image(image)
    assert failure.value.reason == "ErrImagePull"


async def test_addresses_are_unique_and_used_again_only_when_none_is_new(clock: HandClock) -> None:
    runtime = SimRuntime(clock, "10.1.2.0/29")
    sandboxes = [await runtime.run_sandbox(pod(str(number))) for number in range(5)]
    assert [sandbox.ips[0] for sandbox in sandboxes] == [f"10.1.2.{number}" for number in range(2, 7)]
    with pytest.raises(RuntimeFailure, match="no address is free"):
        await runtime.run_sandbox(pod("more"))
    await runtime.remove_sandbox(sandboxes[3].id)
    assert (await runtime.run_sandbox(pod("again"))).ips == ("10.1.2.5",)


async def test_pods_of_a_dual_stack_node_have_an_address_of_each_family(clock: HandClock) -> None:
    runtime = SimRuntime(clock, "10.1.2.0/24,fd00:2::/64")
    sandboxes = [await runtime.run_sandbox(pod(str(number))) for number in range(2)]
    assert [each.ips for each in sandboxes] == [("10.1.2.2", "fd00:2::2"), ("10.1.2.3", "fd00:2::3")]


async def test_two_runs_with_one_seed_are_the_same() -> None:
    async def play() -> list[object]:
        clock = HandClock()
        runtime = SimRuntime(clock)
        for number in range(3):
            sandbox = await runtime.run_sandbox(pod(str(number), exit_after_s=str(number)))
            await start(runtime, sandbox.id, container())
        await clock.advance(1.5)
        return [*await runtime.sandboxes(), *await runtime.containers()]

    assert await play() == await play()


async def test_fifty_thousand_pods_are_cheap(clock: HandClock) -> None:
    began = time.process_time()
    for _ in range(100):
        runtime = SimRuntime(clock, "10.0.0.0/16")
        for number in range(500):
            sandbox = await runtime.run_sandbox(pod(str(number)))
            await start(runtime, sandbox.id, container())
    assert time.process_time() - began < 60  # about 2 s on one core; the bound only catches a change of order
