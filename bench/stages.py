"""Where the time of a request goes: each stage of the door, without network and disk.

    python -m bench.stages

The API server runs in this process over the store in memory and is asked one request after the other, by a user whom a
role allows it. The functions that are the stages are wrapped; what a stage asks of another one counts there. Medians,
so a busy machine shifts them little.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

from bench import subjects
from knarr.api.core.pods import PodStrategy
from knarr.api.registry import built_in
from knarr.apiserver import answers, bodies, objects, server, writes
from knarr.apiserver.access import Access
from knarr.apiserver.admission import Admission
from knarr.apiserver.authorize import Authorizer
from knarr.apiserver.bootstrap import bootstrap
from knarr.apiserver.objects import Objects
from knarr.apiserver.ownership import managers
from knarr.apiserver.server import APIServer, InProcessTransport
from knarr.client.client import APPLY_PATCH, Client
from knarr.client.transport import Request, User
from knarr.clock import SystemClock
from knarr.store.memory import MemoryStore

WARM_UP, MEASURED = 500, 1_500
WHOLE = "a whole request"
REST = "between them: path, query, time limit, count"
STAGES: Mapping[str, tuple[tuple[Any, str], ...]] = {
    "authenticate": ((Access, "user"),),
    "authorize (Node, RBAC)": ((server, "action_of"), (Authorizer, "authorize")),
    "decode, unknown and double fields": ((bodies, "object_of"), (bodies, "applied_of")),
    "default": ((PodStrategy, "default"), (PodStrategy, "prepare_for_create"), (PodStrategy, "prepare_for_update")),
    "managedFields": (
        (managers, "created"),
        (managers, "updated"),
        (objects, "_plain"),
        (writes, "applied"),
        (writes, "read"),
        (writes, "written"),
    ),
    "admission, mutating": ((Admission, "mutate"),),
    "validate": (
        (objects, "validate_metadata"),
        (objects, "validate_metadata_update"),
        (PodStrategy, "validate"),
        (PodStrategy, "validate_create"),
        (PodStrategy, "validate_update"),
    ),
    "admission, validating": ((Admission, "validate"),),
    "encode": ((objects, "_unstamped"),),
    "store (in memory)": ((Objects, "_write"),),
    "answer": ((answers, "shown"),),
}


class Stopwatch:
    """Time by stage, of one request after the other; a stage inside another one stops the outer one."""

    def __init__(self) -> None:
        self.spent_ns: dict[str, int] = {}
        self._running: list[str] = [REST]
        self._since_ns = 0

    def begin(self) -> None:
        self.spent_ns = dict.fromkeys((REST, *STAGES), 0)
        self._since_ns = time.perf_counter_ns()

    def end(self) -> dict[str, int]:
        self._lap()
        return self.spent_ns

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        self._lap()
        self._running.append(name)
        try:
            yield
        finally:
            self._lap()
            self._running.pop()

    def _lap(self) -> None:
        now_ns = time.perf_counter_ns()
        self.spent_ns[self._running[-1]] += now_ns - self._since_ns
        self._since_ns = time.perf_counter_ns()

    def wrapped(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        if inspect.iscoroutinefunction(function):

            async def waited(*args: Any, **named: Any) -> Any:
                with self.stage(name):
                    return await function(*args, **named)

            return waited

        def called(*args: Any, **named: Any) -> Any:
            with self.stage(name):
                found = function(*args, **named)
                return list(found) if inspect.isgenerator(found) else found

        return called


async def measure(body_of: Callable[[int], dict[str, Any]], *, apply: bool) -> dict[str, float]:
    """Median microseconds by stage, and of a whole request without the watch (WHOLE)."""
    door, ask = await _door(), _request(body_of, apply=apply)
    for number in range(WARM_UP):
        await _ask(door, ask(number))
    whole, parts = [], []
    for number in range(WARM_UP, WARM_UP + MEASURED):
        request = ask(number)
        began_ns = time.perf_counter_ns()
        await _ask(door, request)
        whole.append(time.perf_counter_ns() - began_ns)
    watch = Stopwatch()
    with ExitStack() as patches:
        for name, functions in STAGES.items():
            for owner, function in functions:
                wrapped = watch.wrapped(name, getattr(owner, function))
                patches.enter_context(patch.object(owner, function, wrapped))
        for number in range(WARM_UP + MEASURED, WARM_UP + 2 * MEASURED):
            request = ask(number)
            watch.begin()
            await _ask(door, request)
            parts.append(watch.end())
    found = {name: statistics.median(part[name] for part in parts) / 1e3 for name in (*STAGES, REST)}
    return {WHOLE: statistics.median(whole) / 1e3} | found


async def _door() -> APIServer:
    """An API server with what a fresh cluster has, and with the user of the bench and its rights."""
    clock, store, registry = SystemClock(), MemoryStore(), built_in()
    door = APIServer(store, registry, clock)
    client = Client(InProcessTransport(door), registry, User("bench", ("system:masters",)))
    await bootstrap(client, ["10.96.0.0/16"], ["10.96.0.10"], "127.0.0.1", 6443)
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}}
    accounts = f"/api/v1/namespaces/{subjects.NAMESPACE}/serviceaccounts"
    for path, thing in (*subjects.objects(), (accounts, account)):
        await _ask(door, Request("POST", path, {}, _headers("application/json"), json.dumps(thing).encode(), ROOT))
    return door


ROOT = User("root", ("system:masters", "system:authenticated"))
USER = User(subjects.USER, (subjects.GROUP, "system:authenticated"))


async def _ask(door: APIServer, request: Request) -> None:
    answer = await door.handle_from_outside(request)
    if answer.status >= 300:
        raise RuntimeError(f"{request.method} {request.path}: {answer.body.decode()}")


def _request(body_of: Callable[[int], dict[str, Any]], *, apply: bool) -> Callable[[int], Request]:
    pods = f"/api/v1/namespaces/{subjects.NAMESPACE}/pods"

    def ask(number: int) -> Request:
        thing = body_of(number)
        body, name = json.dumps(thing).encode(), thing["metadata"]["name"]
        if apply:
            return Request("PATCH", f"{pods}/{name}", {"fieldManager": "bench"}, _headers(APPLY_PATCH), body, USER)
        return Request("POST", pods, {}, _headers("application/json"), body, USER)

    return ask


def _headers(content_type: str) -> dict[str, str]:
    return {"host": "127.0.0.1:6443", "content-type": content_type, "accept": "application/json"}


def measured() -> dict[str, dict[str, float]]:
    """By what is asked: µs of the whole request, then by stage."""

    async def both() -> dict[str, dict[str, float]]:
        return {
            "create a pod": await measure(lambda number: subjects.pod(f"created-{number}"), apply=False),
            "apply one with a changed annotation": await measure(
                lambda number: subjects.pod(f"applied-{number % 100}", str(number)), apply=True
            ),
        }

    return asyncio.run(both())


def main() -> None:
    for what, found in measured().items():
        print(f"\n{what}\n")
        for name, spent_us in found.items():
            print(f"{spent_us:6.0f} µs  {name}")


if __name__ == "__main__":
    main()
