"""Informers and the loop base, against a scripted transport: what the server would say, line by line."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from knarr.api.core.v1 import ConfigMap
from knarr.api.errors import ServiceUnavailable
from knarr.api.meta.v1 import ObjectMeta
from knarr.api.registry import built_in
from knarr.client.client import Client
from knarr.client.controller import Controller
from knarr.client.informer import Informer, Informers, key_of
from knarr.client.transport import Answer, Request
from knarr.simulate.clock import VirtualClock, run

Change = tuple[str | None, str | None]


class Script:
    """A server of ConfigMaps whose watches can be held back, broken, or told that history is gone."""

    def __init__(self) -> None:
        self.objects: dict[str, dict[str, Any]] = {}
        self.revision = 10
        self.history: list[tuple[int, bytes]] = []
        self.changed = asyncio.Event()
        self.requests: list[str] = []
        self.down = False
        self.held = False
        self.oldest = 0
        self.break_watches = asyncio.Event()

    def put(self, name: str, **data: str) -> dict[str, Any]:
        self.revision += 1
        kind = "MODIFIED" if name in self.objects else "ADDED"
        metadata = {"name": name, "namespace": "default", "uid": name, "resourceVersion": str(self.revision)}
        self.objects[name] = {"metadata": metadata, "data": data}
        self._record(kind, self.objects[name])
        return self.objects[name]

    def remove(self, name: str) -> None:
        self.revision += 1
        last = self.objects.pop(name)
        self._record("DELETED", {**last, "metadata": {**last["metadata"], "resourceVersion": str(self.revision)}})

    async def send(self, request: Request) -> Answer:
        self.requests.append("WATCH" if "watch" in request.query else request.method)
        if self.down:
            raise ServiceUnavailable("no way there")
        if request.method == "PUT":
            sent = msgspec.json.decode(request.body)
            return Answer(200, {}, msgspec.json.encode(self.put(sent["metadata"]["name"], **sent.get("data", {}))))
        if "watch" in request.query:
            return Answer(200, {}, stream=self._stream(int(request.query["resourceVersion"])))
        items = list(self.objects.values())
        body = {"metadata": {"resourceVersion": str(self.revision)}, "items": items}
        return Answer(200, {}, msgspec.json.encode(body))

    async def close(self) -> None: ...

    def _record(self, kind: str, obj: dict[str, Any]) -> None:
        self.history.append((self.revision, msgspec.json.encode({"type": kind, "object": obj}) + b"\n"))
        self.changed.set()

    async def _stream(self, after: int) -> AsyncIterator[bytes]:
        self.break_watches = asyncio.Event()
        broken = self.break_watches
        if after < self.oldest:
            status = {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old"}
            yield msgspec.json.encode({"type": "ERROR", "object": status}) + b"\n"
            return
        while not broken.is_set():
            for revision, line in list(self.history):
                if revision > after and not self.held:
                    after = revision
                    yield line[:7]  # lines come in pieces
                    yield line[7:]
            self.changed.clear()
            changed = asyncio.create_task(self.changed.wait())
            stopped = asyncio.create_task(broken.wait())
            try:
                await asyncio.wait({changed, stopped}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                changed.cancel()
                stopped.cancel()

    def release(self) -> None:
        self.held = False
        self.changed.set()


def client_of(script: Script) -> Client:
    return Client(script, built_in())


async def following(script: Script, clock: VirtualClock, group: asyncio.TaskGroup) -> tuple[Informer[ConfigMap], Any]:
    informer = Informer(client_of(script), ConfigMap, clock)
    task = group.create_task(informer.run())
    await informer.synced.wait()
    return informer, task


def test_it_shows_the_list_then_follows_and_tells_both_forms() -> None:
    async def scenario(clock: VirtualClock) -> None:
        script = Script()
        script.put("a", v="1")
        told: list[Change] = []

        def value(obj: ConfigMap | None) -> str | None:
            return f"{obj.metadata.name}={obj.data.get('v')}" if obj else None

        async with asyncio.TaskGroup() as group:
            informer, task = await following(script, clock, group)
            informer.add_handler(lambda old, new: told.append((value(old), value(new))))
            script.put("b", v="1")
            script.put("a", v="2")
            script.remove("b")
            await informer.reached(script.revision)
            task.cancel()
        assert told == [(None, "a=1"), (None, "b=1"), ("a=1", "a=2"), ("b=1", None)]
        assert [key_of(obj) for obj in informer.all()] == ["default/a"]

    run(scenario)


def test_a_broken_watch_goes_on_where_it_was_without_a_new_list() -> None:
    async def scenario(clock: VirtualClock) -> None:
        script = Script()
        async with asyncio.TaskGroup() as group:
            informer, task = await following(script, clock, group)
            script.put("a")
            await informer.reached(script.revision)
            script.break_watches.set()
            script.down = True
            script.put("b")
            await clock.sleep(30)
            assert informer.get("default/b") is None
            script.down = False
            await informer.reached(script.revision)
            assert informer.get("default/b") is not None
            task.cancel()
        assert script.requests.count("GET") == 1

    run(scenario)


def test_when_history_is_gone_it_lists_again_and_tells_what_it_missed() -> None:
    async def scenario(clock: VirtualClock) -> None:
        script = Script()
        script.put("gone")
        script.put("stays", v="1")
        told: list[Change] = []
        async with asyncio.TaskGroup() as group:
            informer, task = await following(script, clock, group)
            informer.add_handler(
                lambda old, new: told.append((old and old.metadata.name, new and new.metadata.name))  # type: ignore[arg-type]
            )
            told.clear()
            script.down = True
            script.break_watches.set()
            await clock.sleep(1)
            script.remove("gone")
            script.put("stays", v="2")
            script.put("new")
            script.oldest = script.revision
            script.down = False
            await informer.reached(script.revision)
            task.cancel()
        assert told == [("gone", None), ("stays", "stays"), (None, "new")]

    run(scenario)


def test_retries_wait_longer_each_time_but_not_for_ever() -> None:
    async def scenario(clock: VirtualClock) -> int:
        script = Script()
        script.down = True
        task = asyncio.create_task(Informer(client_of(script), ConfigMap, clock).run())
        await clock.sleep(60)
        task.cancel()
        return len(script.requests)

    assert 10 < run(scenario) < 40


def test_an_index_is_what_its_name_says_for_everybody() -> None:
    """One loop's index under the name of another's would answer what the other can't know."""

    async def scenario(clock: VirtualClock) -> None:
        informer = Informer(client_of(Script()), ConfigMap, clock)

        def by_team(obj: ConfigMap) -> list[str]:
            return [obj.data.get("team", "")]

        informer.add_index("team", by_team)
        informer.add_index("team", by_team)
        with pytest.raises(AssertionError, match="team"):
            informer.add_index("team", lambda obj: [obj.metadata.name or ""])

    run(scenario)


def test_an_index_follows_every_change() -> None:
    async def scenario(clock: VirtualClock) -> None:
        script = Script()
        script.put("a", team="red")
        async with asyncio.TaskGroup() as group:
            informer, task = await following(script, clock, group)
            informer.add_index("team", lambda obj: filter(None, (obj.data.get("team"),)))
            script.put("b", team="red")
            await informer.reached(script.revision)
            assert [obj.metadata.name for obj in informer.by_index("team", "red")] == ["a", "b"]
            script.put("a", team="blue")
            script.remove("b")
            await informer.reached(script.revision)
            assert informer.by_index("team", "red") == []
            assert [obj.metadata.name for obj in informer.by_index("team", "blue")] == ["a"]
            task.cancel()

    run(scenario)


class Counting(Controller):
    """Counts a ConfigMap up to 3, and notes which count it saw each time."""

    name = "counting"
    seen: list[str]

    def watch(self) -> None:
        self.seen = []
        self.maps = self.informer(ConfigMap)
        self.on(self.maps, key_of)

    async def reconcile(self, key: str) -> None:
        obj = self.maps.get(key)
        assert obj is not None
        self.seen.append(obj.data["n"])
        if int(obj.data["n"]) < 3:
            await self.client.update(
                ConfigMap(
                    metadata=ObjectMeta(name=obj.metadata.name, namespace="default"),
                    data={"n": str(int(obj.data["n"]) + 1)},
                )
            )
            self.queue.add(key)  # somebody else wakes it at once


def test_a_key_is_not_looked_at_again_before_its_writes_show() -> None:
    async def scenario(clock: VirtualClock) -> list[str]:
        script = Script()
        script.put("a", n="0")
        client = client_of(script)
        informers = Informers(client, clock)
        controller = Counting(client, informers, clock)
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(informers.run()), group.create_task(controller.run())]
            await informers.synced()
            script.held = True  # the watch falls behind
            await clock.sleep(5)
            assert controller.seen == ["0"]
            script.release()
            await clock.sleep(1)
            for task in tasks:
                task.cancel()
        return controller.seen

    seen = run(scenario)
    assert list(dict.fromkeys(seen)) == ["0", "1", "2", "3"]


class Failing(Controller):
    """Fails until it was called four times."""

    name = "failing"

    def watch(self) -> None:
        self.calls: list[float] = []
        self.maps = self.informer(ConfigMap)
        self.on(self.maps, key_of)

    async def reconcile(self, key: str) -> float | None:
        self.calls.append(round(self.clock.monotonic_s(), 3))
        if len(self.calls) < 4:
            raise ValueError("not yet")
        return 100.0 if len(self.calls) == 4 else None


def test_a_failing_key_is_tried_again_and_a_number_asks_for_another_look() -> None:
    async def scenario(clock: VirtualClock) -> list[float]:
        script = Script()
        script.put("a")
        client = client_of(script)
        informers = Informers(client, clock)
        controller = Failing(client, informers, clock)
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(informers.run()), group.create_task(controller.run())]
            await clock.sleep(500)
            for task in tasks:
                task.cancel()
        return controller.calls

    first, *later = run(scenario)
    assert [round(at - first, 3) for at in later] == [0.005, 0.015, 0.035, 100.035]


def test_a_cancelled_loop_leaves_no_task_behind() -> None:
    async def scenario(clock: VirtualClock) -> None:
        script = Script()
        client = client_of(script)
        informers = Informers(client, clock)
        controller = Counting(client, informers, clock)
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(informers.run()), group.create_task(controller.run())]
            await clock.sleep(1)
            for task in tasks:
                task.cancel()
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run(scenario)
