"""One request to a resource, taken apart: what every handler of the door is given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

from knarr.api.decode import decoder
from knarr.api.errors import Invalid, not_supported
from knarr.api.resources import Resource
from knarr.apiserver.requests import ResourcePath
from knarr.client.transport import Request, User


@dataclass(slots=True)
class Call:
    """A request to a resource."""

    request: Request
    user: User
    resource: Resource
    """As the client names it."""
    kept: Resource
    """As it is in the store: the same, but for a version that is converted."""
    path: ResourcePath

    @property
    def query(self) -> Mapping[str, str]:
        return self.request.query

    @property
    def dry_run(self) -> bool:
        """Raises Invalid."""
        value = self.query.get("dryRun", "")
        if value not in ("", "All"):
            raise Invalid.of("meta.k8s.io", "CreateOptions", "", [not_supported("dryRun", value, ("All",))])
        return value == "All"

    @property
    def validation(self) -> str:
        """fieldValidation: Ignore, Warn or Strict. Raises Invalid."""
        value = self.query.get("fieldValidation") or "Warn"
        if value not in ("Ignore", "Warn", "Strict"):
            cause = not_supported("fieldValidation", value, ("Ignore", "Strict", "Warn"))
            raise Invalid.of("meta.k8s.io", "CreateOptions", "", [cause])
        return value

    def presented(self, value: bytes) -> bytes:
        """An object's bytes in the version that the client asked for."""
        return presented(self.resource, value)


def presented(resource: Resource, value: bytes) -> bytes:
    """The bytes of a kept object as `resource` shows it."""
    conversion = resource.conversion
    if conversion is None:
        return value
    return msgspec.json.encode(conversion.from_kept(decoder(conversion.kept_as).decode(value)))
