"""The part of Google's Compute Engine API that load balancers need, as far as its reference tells it.

Resources are made once (409), keep what they are given, know which others they name (400 for one in use), and changes
answer operations that are done at once.
"""

from __future__ import annotations

import json
import re
from hashlib import blake2b
from typing import Any

from tests.edge.rest_cloud import Reply, RestCloud

PREFIX = "/compute/v1/"
LINK = "https://www.googleapis.com/compute/v1/"
USES = {"backendServices": ("healthChecks", "backends"), "forwardingRules": ("backendService",)}


class ComputeEngine(RestCloud):
    def handle(self, method: str, path: str, query: dict[str, list[str]], body: Any, headers: Any) -> Reply:
        path = path.removeprefix(PREFIX)
        verb = re.fullmatch(r"(.*/networkEndpointGroups/[^/]+)/(list|attach|detach)NetworkEndpoints", path)
        if verb:
            return self._endpoints(verb[1], verb[2], body)
        if "/operations/" in path:
            return 200, self._done(path)
        if path.endswith("/aggregated/networkEndpointGroups"):
            return 200, self._aggregated()
        if method == "POST":
            return self._insert(f"{path}/{body['name']}", body)
        if path not in self.resources:
            return _error(404, f"The resource '{path}' was not found", "notFound")
        if method == "GET":
            return 200, self.resources[path]
        if method == "DELETE":
            return self._delete(path)
        there = self.resources[path]
        if "fingerprint" in there and body.get("fingerprint") != there["fingerprint"]:
            return _error(412, "Invalid fingerprint.", "conditionNotMet")
        kept = there if method == "PATCH" else {key: there[key] for key in ("name", "selfLink")}
        self.resources[path] = self._completed(path, {**kept, **body})
        return 200, self._done(path)

    def _insert(self, path: str, body: Any) -> Reply:
        if path in self.resources:
            return _error(409, f"The resource '{path}' already exists", "alreadyExists")
        made = self._completed(path, {**body, "selfLink": f"{LINK}{path}"})
        if "/addresses/" in path:
            taken = {each.get("address") for each in self.resources.values()}
            made["address"] = next(text for n in range(1, 250) if (text := f"203.0.113.{n}") not in taken)
        for named in _named(made, path):
            if named not in self.resources:
                return _error(400, f"Invalid value: '{named}' does not exist", "invalid")
        self.resources[path] = made
        return 200, self._done(path)

    def _completed(self, path: str, made: dict[str, Any]) -> dict[str, Any]:
        """With what the server fills in itself: links are whole, and some resources have a fingerprint."""
        for key in ("network", "subnetwork"):
            if key in made and not made[key].startswith(LINK):
                made[key] = f"{LINK}{made[key]}"
        if "/backendServices/" in path:
            content = json.dumps({key: value for key, value in made.items() if key != "fingerprint"}, sort_keys=True)
            made["fingerprint"] = blake2b(content.encode(), digest_size=8).hexdigest()
        return made

    def _delete(self, path: str) -> Reply:
        users = [user for user, resource in self.resources.items() if path in _named(resource, user)]
        if users:
            return _error(400, f"The resource '{path}' is already being used by '{users[0]}'", "resourceInUse")
        del self.resources[path]
        self.resources.pop(f"{path}/endpoints", None)
        return 200, self._done(path)

    def _endpoints(self, group: str, verb: str, body: Any) -> Reply:
        if group not in self.resources:
            return _error(404, f"The resource '{group}' was not found", "notFound")
        there: list[str] = self.resources[group].setdefault("knownEndpoints", [])
        if verb == "list":
            return 200, {"items": [{"networkEndpoint": {"instance": each}} for each in there]}
        for endpoint in body["networkEndpoints"]:
            if (endpoint["instance"] in there) == (verb == "attach"):
                return _error(400, f"{endpoint['instance']} can't be {verb}ed twice", "invalid")
            if verb == "attach":
                there.append(endpoint["instance"])
            else:
                there.remove(endpoint["instance"])
        there.sort()
        return 200, self._done(group)

    def _aggregated(self) -> Any:
        items: dict[str, Any] = {"zones/elsewhere": {"warning": {"code": "NO_RESULTS_ON_PAGE"}}}
        for path, resource in self.resources.items():
            if match := re.fullmatch(r"projects/[^/]+/(zones/[^/]+)/networkEndpointGroups/[^/]+", path):
                shown = {"name": resource["name"], "selfLink": resource["selfLink"]}
                items.setdefault(match[1], {"networkEndpointGroups": []})["networkEndpointGroups"].append(shown)
        return {"items": items}

    def _done(self, path: str) -> Any:
        parts = path.split("/")
        where = {parts[2][:-1]: parts[3]} if parts[2] in ("regions", "zones") else {}
        return {"name": "operation-1", "status": "DONE", "progress": 100, **where}


def _named(resource: Any, path: str) -> list[str]:
    """The resources that one uses."""
    kind = path.split("/")[-2]
    found: list[str] = []
    for key in USES.get(kind, ()):
        value = resource.get(key) or []
        for each in value if isinstance(value, list) else [value]:
            link = each["group"] if isinstance(each, dict) else each
            found.append(link[link.index("projects/") :])
    return found


def _error(status: int, message: str, reason: str) -> Reply:
    return status, {"error": {"code": status, "message": message, "errors": [{"reason": reason, "message": message}]}}
