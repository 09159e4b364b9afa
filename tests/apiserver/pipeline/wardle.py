"""A server of a kind of its own, as upstream's sample-apiserver: it keeps flunders."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

from aiohttp import web

from tests.apiserver.pipeline.backend import Backend

GROUP, VERSION = "wardle.example.com", "v1alpha1"
NAME = f"{VERSION}.{GROUP}"
VERBS = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"]


class Wardle(Backend):
    """The sample server: it keeps flunders."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.kept: dict[str, Any] = {}
        self._uids = itertools.count(1)

    async def answer(self, request: web.Request) -> web.StreamResponse:
        root, _, name = request.path.partition("/flunders")
        if request.path == f"/apis/{GROUP}/{VERSION}":
            kind = {
                "name": "flunders",
                "singularName": "flunder",
                "namespaced": True,
                "kind": "Flunder",
                "verbs": VERBS,
            }
            found = {"kind": "APIResourceList", "groupVersion": f"{GROUP}/{VERSION}", "resources": [kind]}
            return web.json_response(found)
        if not root.endswith("/namespaces/default"):
            return web.json_response({"kind": "Status", "status": "Failure", "code": 404}, status=404)
        return self.flunders(request.method, name.strip("/"), await request.json() if request.body_exists else {})

    def flunders(self, method: str, name: str, body: dict[str, Any]) -> web.Response:
        match method, name:
            case "POST", "":
                body["metadata"]["uid"] = f"uid-{next(self._uids)}"
                self.kept[body["metadata"]["name"]] = body
                return web.json_response(body, status=201)
            case "GET", "":
                return web.json_response({"kind": "FlunderList", "items": list(self.kept.values())})
            case "GET", _ if name in self.kept:
                return web.json_response(self.kept[name])
            case "DELETE", _ if name in self.kept:
                return web.json_response(self.kept.pop(name))
        missing = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": 404}
        return web.json_response(missing | {"message": f'flunders.{GROUP} "{name}" not found'}, status=404)


def flunder(name: str) -> dict[str, Any]:
    return {"apiVersion": f"{GROUP}/{VERSION}", "kind": "Flunder", "metadata": {"name": name}}
