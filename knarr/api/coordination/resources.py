"""The kinds of the group coordination.k8s.io, as they are served."""

from __future__ import annotations

from knarr.api.coordination import v1
from knarr.api.resources import Resource

RESOURCES = (Resource(v1.Lease, "coordination.k8s.io", "v1", "Lease", "leases", "lease", True),)
