"""A client that lists, watches, is cut off, resumes and lists again sees just what is there: no gap, no repeat.

Random writes against a model; the client keeps a copy by what the watch tells it, as an informer does.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import Any, cast

import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from knarr.client.client import MERGE_PATCH
from tests.apiserver.pipeline.door import CONFIG_MAPS, Door, config_map, open_door

NAMES = st.sampled_from("abcd")
LABELS = st.sampled_from(["in", "out"])
STEPS = st.lists(
    st.tuples(st.just("set"), NAMES, LABELS)
    | st.tuples(st.just("delete"), NAMES, st.just(""))
    | st.tuples(st.sampled_from(["read", "reconnect", "compact"]), st.just(""), st.just("")),
    max_size=30,
)


class Copy:
    """What a client holds of a selection, and how it got it."""

    def __init__(self, door: Door, query: dict[str, str]) -> None:
        self._door = door
        self._query = query
        self.objects: dict[str, Any] = {}
        self.seen: list[int] = []
        """Revisions of events, since the last list."""
        self.revision = 0
        self.lists = 0
        self._stream: Any = None

    async def start(self) -> None:
        listed = await self._door.done("GET", CONFIG_MAPS, **self._query)
        self.objects = {item["metadata"]["name"]: item["metadata"]["labels"] for item in listed["items"]}
        self.revision, self.seen = int(listed["metadata"]["resourceVersion"]), []
        self.lists += 1
        await self._open()

    async def _open(self) -> None:
        query = self._query | {"watch": "1", "resourceVersion": str(self.revision)}
        self._stream = (await self._door.ask("GET", CONFIG_MAPS, **query)).stream

    async def read(self) -> None:
        """Take what is there: a watch that is at its end waits, so a mark is written that it must come by."""
        mark = await self._door.done("POST", CONFIG_MAPS, config_map("mark", {"tier": "in", "mark": "1"}))
        await self._door.done("DELETE", f"{CONFIG_MAPS}/mark")
        until = int(mark["metadata"]["resourceVersion"]) + 1
        while self.revision < until:
            for line in (await anext(self._stream)).splitlines():
                event = msgspec.json.decode(line)
                if event["type"] == "ERROR":
                    assert event["object"]["code"] == 410
                    await self.close()
                    await self.start()
                    return
                self._take(event["type"], event["object"]["metadata"])

    def _take(self, kind: str, metadata: dict[str, Any]) -> None:
        name, revision = metadata["name"], int(metadata["resourceVersion"])
        assert not self.seen or revision > self.seen[-1], "an event came twice, or out of order"
        assert revision > self.revision
        self.seen.append(revision)
        self.revision = revision
        assert (name in self.objects) is (kind != "ADDED")
        # What leaves a selection is shown as it was while it was in it.
        assert not self._query or metadata["labels"]["tier"] == "in"
        if kind == "DELETED":
            del self.objects[name]
        else:
            self.objects[name] = metadata["labels"]

    async def reconnect(self) -> None:
        await self.close()
        await self._open()

    async def close(self) -> None:
        async with aclosing(cast(Any, self._stream)):
            pass


async def play(steps: list[tuple[str, str, str]]) -> None:
    async with open_door() as door:
        for name in ("kube-root-ca.crt",):
            await door("DELETE", f"{CONFIG_MAPS}/{name}")
        there: dict[str, str] = {}
        copies = [Copy(door, {}), Copy(door, {"labelSelector": "tier=in"})]
        for copy in copies:
            await copy.start()
        for what, name, label in steps:
            if what == "set" and name not in there:
                await door.done("POST", CONFIG_MAPS, config_map(name, {"tier": label}))
                there[name] = label
            elif what == "set":
                patch = {"metadata": {"labels": {"tier": label}}}
                await door.done("PATCH", f"{CONFIG_MAPS}/{name}", patch, content_type=MERGE_PATCH)
                there[name] = label
            elif what == "delete" and there.pop(name, None):
                await door.done("DELETE", f"{CONFIG_MAPS}/{name}")
            elif what == "compact":
                await door.store.compact(door.store.revision)
            elif what in ("read", "reconnect"):
                for copy in copies:
                    await (copy.read() if what == "read" else copy.reconnect())
        for copy in copies:
            await copy.read()
            await copy.read()  # After a list that was needed, once more.
            await copy.close()
        assert {name: labels["tier"] for name, labels in copies[0].objects.items()} == there
        inside = {name: label for name, label in there.items() if label == "in"}
        assert {name: labels["tier"] for name, labels in copies[1].objects.items()} == inside


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(STEPS)
def test_a_copy_kept_by_watches_is_what_is_there(steps: list[tuple[str, str, str]]) -> None:
    asyncio.run(play(steps))
