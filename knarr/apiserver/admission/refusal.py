"""How admission says no: 403, with the object and the reason."""

from __future__ import annotations

from knarr.api.errors import Forbidden
from knarr.apiserver.admission import Attributes


def refusal(attributes: Attributes, detail: str) -> Forbidden:
    """`<resource> "<name>" is forbidden: <detail>`."""
    resource = attributes.resource
    name = name_of(attributes)
    subject = f'{resource.qualified} "{name}"' if name else resource.qualified
    return Forbidden(f"{subject} is forbidden: {detail}", group=resource.group, kind=resource.plural, name=name)


def name_of(attributes: Attributes) -> str:
    """Of the object that is written."""
    found = attributes.obj if attributes.obj is not None else attributes.old
    return attributes.name or (found.metadata.name or "" if found is not None else "")
