"""The kinds of the group discovery.k8s.io, as they are served."""

from __future__ import annotations

from knarr.api.discovery import v1
from knarr.api.resources import Resource

RESOURCES = (
    Resource(v1.EndpointSlice, "discovery.k8s.io", "v1", "EndpointSlice", "endpointslices", "endpointslice", True),
)
