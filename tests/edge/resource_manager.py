"""The part of Azure's Resource Manager that load balancers need, as far as its reference tells it.

A load balancer is put as a whole and keeps an etag (412); what names another resource keeps that from being deleted
(400); a network security group has each priority once; public addresses are static. Every operation is done at once.
"""

from __future__ import annotations

import itertools
from typing import Any

from tests.edge.rest_cloud import Reply, RestCloud

GROUP = "/subscriptions/sub/resourceGroups/rg/providers/Microsoft.Network"
PARTS = ("frontendIPConfigurations", "backendAddressPools", "probes", "loadBalancingRules")


class ResourceManager(RestCloud):
    def __init__(self) -> None:
        super().__init__()
        self._etags = itertools.count(1)

    def handle(self, method: str, path: str, query: dict[str, list[str]], body: Any, headers: Any) -> Reply:
        if method == "GET":
            return self._get(path)
        if method == "DELETE":
            return self._delete(path)
        return self._put(path, body, headers)

    def _get(self, path: str) -> Reply:
        if path in self.resources:
            return 200, self.resources[path]
        if path.endswith(("/securityRules", "/publicIPAddresses")):
            found = [value for key, value in self.resources.items() if key.rpartition("/")[0] == path]
            return 200, {"value": found}
        return _error(404, "ResourceNotFound", f"The Resource '{path}' was not found.")

    def _put(self, path: str, body: Any, headers: Any) -> Reply:
        before = self.resources.get(path)
        if headers.get("if-none-match") == "*" and before is not None:
            return _error(412, "PreconditionFailed", "It exists.")
        if headers.get("if-match") and (before is None or before["etag"] != headers["if-match"]):
            return _error(412, "PreconditionFailed", "The etag differs.")
        made = {**body, "id": path, "name": path.rpartition("/")[2], "etag": f'W/"{next(self._etags)}"'}
        properties = made["properties"] = {**body["properties"], "provisioningState": "Succeeded"}
        if "/securityRules/" in path:
            for other, rule in self.resources.items():
                same_group = other.rpartition("/")[0] == path.rpartition("/")[0]
                if same_group and other != path and rule["properties"]["priority"] == properties["priority"]:
                    return _error(400, "SecurityRuleConflict", f"{other} has the priority {properties['priority']}")
        if "/publicIPAddresses/" in path:
            taken = {each["properties"].get("ipAddress") for each in self.resources.values()}
            fresh = (f"203.0.113.{number}" for number in range(1, 250))
            kept = (before or {}).get("properties", {}).get("ipAddress")
            properties["ipAddress"] = kept or next(text for text in fresh if text not in taken)
        if "/loadBalancers/" in path and (fault := self._complete(path, properties)):
            return fault
        self.resources[path] = made
        return (201 if before is None else 200), made

    def _complete(self, path: str, properties: dict[str, Any]) -> Reply | None:
        ids = set()
        for part in PARTS:
            for each in properties.get(part) or []:
                each["id"] = f"{path}/{part}/{each['name']}"
                each["properties"]["provisioningState"] = "Succeeded"
                ids.add(each["id"])
        for rule in properties.get("loadBalancingRules") or []:
            for key in ("frontendIPConfiguration", "backendAddressPool", "probe"):
                if rule["properties"][key]["id"] not in ids:
                    return _error(400, "InvalidResourceReference", f"{rule['properties'][key]['id']} is not there")
        for number, frontend in enumerate(properties.get("frontendIPConfigurations") or [], 4):
            public = frontend["properties"].get("publicIPAddress")
            if public is None:
                frontend["properties"].setdefault("privateIPAddress", f"10.0.0.{number}")
            elif public["id"] not in self.resources:
                return _error(400, "InvalidResourceReference", f"{public['id']} is not there")
        return None

    def _delete(self, path: str) -> Reply:
        if path not in self.resources:
            return 204, None
        for other, resource in self.resources.items():
            for frontend in resource["properties"].get("frontendIPConfigurations") or []:
                if frontend["properties"].get("publicIPAddress", {}).get("id") == path:
                    return _error(400, "PublicIPAddressCannotBeDeleted", f"{path} is used by {other}")
        del self.resources[path]
        return 200, None

    def snapshot(self) -> dict[str, Any]:
        """Without etags, which every write changes."""
        text = super().snapshot()
        return {path: {key: value for key, value in each.items() if key != "etag"} for path, each in text.items()}


def _error(status: int, code: str, message: str) -> Reply:
    return status, {"error": {"code": code, "message": message}}
