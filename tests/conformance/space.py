"""A namespace of one test in the real cluster, and kubectl in it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from tests.conformance.image import PORT
from tests.e2e.conftest import Cluster


class Space:
    """A namespace of one test."""

    def __init__(self, cluster: Cluster, name: str) -> None:
        self.cluster = cluster
        self.name = name

    def run(self, *arguments: str, **more: Any) -> str:
        return self.cluster.kubectl("-n", self.name, *arguments, **more)

    def apply(self, *objects: dict[str, Any]) -> None:
        self.run("create", "-f", "-", given=listed(objects))

    def get(self, *arguments: str) -> Any:
        return json.loads(self.run("get", *arguments, "-o", "json"))

    def running(self, selector: str, count: int) -> list[str]:
        """The names of so many pods, once they are ready and no other is there."""

        def names() -> list[str]:
            pods = self.get("pods", "-l", selector)["items"]
            ready = [pod["metadata"]["name"] for pod in pods if is_ready(pod)]
            return ready if len(ready) == len(pods) == count else []

        found: list[str] = self.until(names, f"{count} pods of {selector}")
        return found

    def until(self, holds: Callable[[], Any], what: str) -> Any:
        return self.cluster.until(holds, what)

    def page(self, pod: str, path: str) -> str:
        """Of a pod, through the API server."""
        return self.cluster.kubectl("get", "--raw", f"/api/v1/namespaces/{self.name}/pods/{pod}:{PORT}/proxy{path}")


def is_ready(pod: dict[str, Any]) -> bool:
    if "deletionTimestamp" in pod["metadata"]:
        return False
    conditions = pod.get("status", {}).get("conditions", ())
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)


def listed(objects: Sequence[dict[str, Any]]) -> str:
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})
