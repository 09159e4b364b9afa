"""One request to a resource, taken apart: what every handler of the door is given."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

import msgspec

from knarr.api.decode import decoder
from knarr.api.errors import Cause, Invalid, invalid, not_supported
from knarr.api.resources import Resource
from knarr.apiserver.ownership.managers import NAME_MAX_BYTES, UPDATE, Manager, manager_fault
from knarr.apiserver.requests import ResourcePath
from knarr.client.transport import Request, User

OPTIONS = {"PUT": "UpdateOptions", "PATCH": "PatchOptions", "DELETE": "DeleteOptions"}
PROGRAMS_MAX = 1024
"""User-Agents whose program is remembered."""


class Call(msgspec.Struct):
    """A request to a resource."""

    request: Request
    user: User
    resource: Resource
    """As the client names it."""
    kept: Resource
    """As it is in the store: the same, but for a version that is converted."""
    path: ResourcePath
    versions: Mapping[str, Resource] = msgspec.field(default_factory=dict)
    """All in which the kind is served, by name."""

    @property
    def query(self) -> Mapping[str, str]:
        return self.request.query

    @property
    def dry_run(self) -> bool:
        """Raises Invalid."""
        value = self.query.get("dryRun", "")
        if value not in ("", "All"):
            raise self._odd(not_supported("dryRun", [value], ("All",)))
        return value == "All"

    @property
    def validation(self) -> str:
        """fieldValidation: Ignore, Warn or Strict. Raises Invalid."""
        value = self.query.get("fieldValidation") or "Warn"
        if value not in ("Ignore", "Warn", "Strict"):
            raise self._odd(not_supported("fieldValidation", value, ("", "Ignore", "Strict", "Warn")))
        return value

    def manager(self, operation: str = UPDATE, subresource: str = "") -> Manager:
        """Who will own what this request sets: fieldManager, else the program that the User-Agent names."""
        name = self.query.get("fieldManager", "")
        if name and (fault := manager_fault(name)):
            raise self._odd(invalid("fieldManager", name, fault))
        name = name or _program(self.request.headers.get("user-agent", ""))
        version = self.resource.group_version
        return Manager(name, operation, version, subresource or self.path.subresource, self.versions)

    def _odd(self, cause: Cause) -> Invalid:
        """A fault of the options in the query."""
        return Invalid.of("meta.k8s.io", OPTIONS.get(self.request.method, "CreateOptions"), "", [cause])

    def presented(self, value: bytes) -> bytes:
        """An object's bytes in the version that the client asked for."""
        return presented(self.resource, value)


@lru_cache(maxsize=PROGRAMS_MAX)
def _program(user_agent: str) -> str:
    """kubectl/v1.36.0 (linux/amd64) → kubectl"""
    name = "".join(filter(str.isprintable, user_agent.partition("/")[0]))
    while len(name.encode()) > NAME_MAX_BYTES:
        name = name[:-1]
    return name or "unknown"


def presented(resource: Resource, value: bytes) -> bytes:
    """The bytes of a kept object as `resource` shows it."""
    conversion = resource.conversion
    if conversion is None:
        return value
    return msgspec.json.encode(conversion.from_kept(decoder(conversion.kept_as).decode(value)))
