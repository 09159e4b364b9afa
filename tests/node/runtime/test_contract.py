"""What every runtime does alike: the same tests over the real one and the hollow one."""

from __future__ import annotations

import pytest

from knarr.node.runtime.contract import ContainerState, ImageNotPresent, PullFailure, RuntimeFailure
from tests.node.runtime.conftest import IMAGE, WAIT_S_MAX, Node, ends_with, exit_of, runs, start


async def test_a_sandbox_is_ready_until_it_is_stopped(node: Node) -> None:
    sandbox = await node.runtime.run_sandbox(node.sandbox())
    assert sandbox.ready
    assert [seen.id for seen in await node.runtime.sandboxes()] == [sandbox.id]
    await node.runtime.stop_sandbox(sandbox.id)
    assert [seen.ready for seen in await node.runtime.sandboxes()] == [False]
    await node.runtime.remove_sandbox(sandbox.id)
    assert await node.runtime.sandboxes() == []


async def test_stopping_and_removing_twice_is_no_error(node: Node) -> None:
    sandbox = await node.runtime.run_sandbox(node.sandbox())
    container = await start(node.runtime, sandbox.id, runs())
    for _ in range(2):
        await node.runtime.stop_sandbox(sandbox.id)
    for _ in range(2):
        await node.runtime.remove_container(container)
    for _ in range(2):
        await node.runtime.remove_sandbox(sandbox.id)
    assert await node.runtime.containers() == []


async def test_a_container_is_created_then_running_then_exited(node: Node) -> None:
    sandbox = await node.runtime.run_sandbox(node.sandbox())
    container_id = await node.runtime.create_container(sandbox.id, runs(attempt=3))
    created = await node.runtime.container(container_id)
    assert created is not None
    assert (created.state, created.name, created.attempt) == (ContainerState.CREATED, "main", 3)
    assert created.log_path.endswith("/logs/pod/main/3.log")
    await node.runtime.start_container(container_id)
    running = await node.runtime.container(container_id)
    assert running is not None
    assert running.state is ContainerState.RUNNING
    assert running.started_at_s is not None
    assert running.exit_code is None
    await node.runtime.stop_container(container_id, 20)
    exited = await node.runtime.container(container_id)
    assert exited is not None
    assert exited.state is ContainerState.EXITED
    assert exited.finished_at_s is not None
    assert exited.exit_code is not None


@pytest.mark.parametrize("code", [0, 1, 42])
async def test_an_exit_is_told_with_its_code(node: Node, code: int) -> None:
    labels, config = ends_with(code)
    sandbox = await node.runtime.run_sandbox(node.sandbox(labels=labels))
    container = await exit_of(node.runtime, await start(node.runtime, sandbox.id, config))
    assert container.state is ContainerState.EXITED
    assert container.exit_code == code
    assert not container.oom_killed


async def test_a_started_container_cannot_be_started_again(node: Node) -> None:
    sandbox = await node.runtime.run_sandbox(node.sandbox())
    container = await start(node.runtime, sandbox.id, runs())
    with pytest.raises(RuntimeFailure, match="running"):
        await node.runtime.start_container(container)


async def test_an_agent_that_restarts_finds_its_containers_and_restarts_none(node: Node) -> None:
    sandbox = await node.runtime.run_sandbox(node.sandbox(labels={"a": "b"}))
    container = await start(node.runtime, sandbox.id, runs())
    before = await node.runtime.container(container)
    runtime = await node.restart_agent()
    assert await runtime.container(container) == before
    (found,) = await runtime.sandboxes()
    assert (found.id, found.ready, found.ips) == (sandbox.id, True, sandbox.ips)
    assert (found.config.pod_uid, found.config.labels) == ("uid-pod", {"a": "b"})
    await runtime.stop_container(container, 20)
    after = await exit_of(runtime, container)
    assert after.state is ContainerState.EXITED


async def test_nothing_starts_in_a_stopped_sandbox(node: Node) -> None:
    sandbox = await node.runtime.run_sandbox(node.sandbox())
    created = await node.runtime.create_container(sandbox.id, runs())
    await node.runtime.stop_sandbox(sandbox.id)
    with pytest.raises(RuntimeFailure, match="not ready"):
        await node.runtime.start_container(created)
    with pytest.raises(RuntimeFailure, match="not ready"):
        await node.runtime.create_container(sandbox.id, runs("other"))


async def test_stopping_a_sandbox_ends_its_containers(node: Node) -> None:
    sandbox = await node.runtime.run_sandbox(node.sandbox())
    ids = [await start(node.runtime, sandbox.id, runs(name)) for name in ("a", "b")]
    await node.runtime.stop_sandbox(sandbox.id)
    for container_id in ids:
        container = await node.runtime.container(container_id)
        assert container is not None
        assert (container.state, container.exit_code) == (ContainerState.EXITED, 137)


async def test_images_are_found_by_every_name_they_have(node: Node) -> None:
    image = await node.runtime.image(IMAGE)
    assert image is not None
    assert await node.runtime.image(image.id) == image
    assert IMAGE in image.repo_tags
    assert image in await node.runtime.images()


async def test_an_image_that_is_not_here_is_refused(node: Node) -> None:
    sandbox = await node.runtime.run_sandbox(node.sandbox())
    with pytest.raises(ImageNotPresent) as refusal:
        await node.runtime.create_container(sandbox.id, runs(image="knarr.test/does-not-exist"))
    assert refusal.value.reason == "ErrImageNeverPull"
    assert await node.runtime.containers() == []


async def test_a_name_that_is_no_image_name_is_refused(node: Node) -> None:
    with pytest.raises(PullFailure) as refusal:
        await node.runtime.pull_image("Not A Name")
    assert refusal.value.reason == "InvalidImageName"


async def test_commands_run_in_running_containers_only(node: Node) -> None:
    sandbox = await node.runtime.run_sandbox(node.sandbox())
    container = await start(node.runtime, sandbox.id, runs())
    assert (await node.runtime.exec_sync(container, ["true"], WAIT_S_MAX)).exit_code == 0
    assert await node.runtime.usage(container) is not None
    await node.runtime.stop_container(container, 20)
    with pytest.raises(RuntimeFailure, match="not running"):
        await node.runtime.exec_sync(container, ["true"], WAIT_S_MAX)
    assert await node.runtime.usage(container) is None
