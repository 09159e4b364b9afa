"""What the demo sees: the objects of its namespace as they change, and the answers that the load gets.

Nothing here is assumed: `World` holds what watches delivered, `Load` what came back from the network, each with the
moment at which it was seen (CLOCK_MONOTONIC, so the two can be compared).
"""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from knarr.cli.connection import ApiFailure, Connection
from knarr.cli.kubeconfig import Access

Object = dict[str, Any]
TIMEOUT_S = 5.0


class CheckFailed(Exception):
    """Something that the demo promises did not happen."""


@dataclass(frozen=True, slots=True)
class Change:
    """An object as it was from this moment on; None: gone."""

    at_s: float
    kind: str
    name: str
    object: Object | None


WATCHED = {
    "Pod": "/api/v1/namespaces/{}/pods",
    "Deployment": "/apis/apps/v1/namespaces/{}/deployments",
    "ReplicaSet": "/apis/apps/v1/namespaces/{}/replicasets",
    "EndpointSlice": "/apis/discovery.k8s.io/v1/namespaces/{}/endpointslices",
}


class World:
    """The objects of one namespace, as watches show them."""

    def __init__(self, access: Access, namespace: str) -> None:
        self._access = access
        self._namespace = namespace
        self._changed = threading.Condition()
        self._objects: dict[str, dict[str, Object]] = {kind: {} for kind in WATCHED}
        self.changes: list[Change] = []
        for kind, path in WATCHED.items():
            threading.Thread(target=self._follow, args=(kind, path.format(namespace)), daemon=True).start()

    def all(self, kind: str, **labels: str) -> list[Object]:
        with self._changed:
            return [
                obj
                for obj in self._objects[kind].values()
                if labels.items() <= (obj["metadata"].get("labels") or {}).items()
            ]

    def one(self, kind: str, name: str) -> Object | None:
        with self._changed:
            return self._objects[kind].get(name)

    def until(self, what: str, holds: Callable[[], Any], timeout_s: float) -> Any:
        """Wait until `holds()` is true, looking whenever something changed; answers it. Raises CheckFailed."""
        until_s = time.monotonic() + timeout_s
        with self._changed:
            while not (held := holds()):
                left_s = until_s - time.monotonic()
                if left_s <= 0:
                    raise CheckFailed(f"{what}: not within {timeout_s:.0f} s. {self._state()}")
                self._changed.wait(left_s)
        return held

    def since(self, at_s: float, kind: str) -> list[Change]:
        with self._changed:
            return [change for change in self.changes if change.kind == kind and change.at_s >= at_s]

    def _state(self) -> str:
        pods = [f"{name} {summary(pod)}" for name, pod in sorted(self._objects["Pod"].items())]
        return "Pods: " + ("; ".join(pods) or "none")

    def _follow(self, kind: str, path: str) -> None:
        """List, watch, and begin again when the server ends the watch."""
        connection = Connection(self._access)
        while True:
            try:
                listed = connection.get(path)
                self._replace(kind, listed["items"])
                for event in connection.watch(path, resourceVersion=listed["metadata"]["resourceVersion"]):
                    if event["type"] == "ERROR":
                        break
                    obj = event["object"]
                    self._note(kind, obj["metadata"]["name"], None if event["type"] == "DELETED" else obj)
            except (ApiFailure, OSError, http.client.HTTPException, ValueError):
                time.sleep(0.2)  # the cluster starts or ends; ask again

    def _replace(self, kind: str, objects: list[Object]) -> None:
        fresh = {obj["metadata"]["name"]: obj for obj in objects}
        for name in set(self._objects[kind]) - set(fresh):
            self._note(kind, name, None)
        for name, obj in fresh.items():
            self._note(kind, name, obj)

    def _note(self, kind: str, name: str, obj: Object | None) -> None:
        with self._changed:
            if obj is None:
                self._objects[kind].pop(name, None)
            else:
                self._objects[kind][name] = obj
            self.changes.append(Change(time.monotonic(), kind, name, obj))
            self._changed.notify_all()


def is_ready(pod: Object) -> bool:
    conditions = pod.get("status", {}).get("conditions") or []
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)


def is_ending(pod: Object) -> bool:
    return "deletionTimestamp" in pod["metadata"]


def condition(obj: Object, kind: str) -> Object:
    return next((each for each in obj.get("status", {}).get("conditions") or [] if each["type"] == kind), {})


def complete(deployment: Object | None) -> bool:
    """What `kubectl rollout status` waits for."""
    if deployment is None:
        return False
    status, wanted = deployment.get("status", {}), deployment["spec"]["replicas"]
    return (
        status.get("observedGeneration", 0) >= deployment["metadata"]["generation"]
        and status.get("updatedReplicas", 0) == wanted
        and status.get("replicas", 0) == wanted
        and status.get("availableReplicas", 0) == wanted
    )


def ready_addresses(slices: Iterable[Object]) -> set[str]:
    """Addresses that a proxy sends new connections to."""
    return {
        address
        for each in slices
        for endpoint in each.get("endpoints") or []
        if endpoint.get("conditions", {}).get("ready") is not False
        for address in endpoint["addresses"]
    }


def summary(pod: Object) -> str:
    """A pod's state in a few words, for messages."""
    status = pod.get("status", {})
    states = []
    for container in status.get("containerStatuses") or []:
        name, detail = next(iter((container.get("state") or {"unknown": {}}).items()))
        states.append(" ".join(filter(None, [name, detail.get("reason"), detail.get("message", "")[:200]])))
    ready = "ready" if is_ready(pod) else "not ready"
    return f"{status.get('phase')}, {ready}{', ending' if is_ending(pod) else ''} ({', '.join(states) or 'no state'})"


@dataclass(frozen=True, slots=True)
class Answer:
    """One request of the load."""

    at_s: float
    took_ms: float
    error: str | None
    body: str


def one_answer(url: str) -> Answer:
    """What a GET on a connection of its own gets."""
    began_s = time.monotonic()
    error, body = None, ""
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT_S) as found:
            body = found.read().decode().strip()
    except (OSError, http.client.HTTPException, ValueError) as failure:
        error = f"{type(failure).__name__}: {failure}"
    return Answer(began_s, (time.monotonic() - began_s) * 1000, error, body)


class Load:
    """A process that puts constant load on a URL, and what it got so far."""

    def __init__(self, url: str, requests_per_s: float) -> None:
        script = Path(__file__).with_name("load.py")
        self._process = subprocess.Popen(
            [sys.executable, str(script), url, str(requests_per_s)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self._changed = threading.Condition()
        self._answers: list[Answer] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def between(self, from_s: float, to_s: float = float("inf")) -> list[Answer]:
        """Requests that began in this span."""
        with self._changed:
            return [answer for answer in self._answers if from_s <= answer.at_s < to_s]

    def settle(self, seconds_s: float) -> None:
        """Wait until requests that begin from now on for so long have been answered."""
        until_s = time.monotonic() + seconds_s
        with self._changed:
            while not any(answer.at_s >= until_s for answer in self._answers[-100:]):
                if not self._changed.wait(10.0) or self._process.poll() is not None:
                    raise CheckFailed("the load generator stopped")

    def close(self) -> None:
        """End the load; what is under way is still counted."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._reader.join(10.0)
        self._process.wait(10.0)

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            answer = Answer(**json.loads(line))
            with self._changed:
                self._answers.append(answer)
                self._changed.notify_all()


def failures(answers: Iterable[Answer]) -> list[Answer]:
    return [answer for answer in answers if answer.error is not None]


def backends(answers: Iterable[Answer]) -> Counter[str]:
    """How many answers came from each backend pod; the body is "frontend V NAME: backend V NAME"."""
    return Counter(answer.body.split()[-1] for answer in answers if answer.error is None)


def versions(answers: Iterable[Answer]) -> Counter[str]:
    """How many answers came from each version of the backend."""
    return Counter(answer.body.split()[-2] for answer in answers if answer.error is None)


def percentile(answers: list[Answer], share: float) -> float:
    """Latency in ms that `share` of the requests stayed below."""
    times = sorted(answer.took_ms for answer in answers)
    return times[min(len(times) - 1, int(len(times) * share))] if times else 0.0
