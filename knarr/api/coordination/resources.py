"""The kinds of the group coordination.k8s.io, as they are served."""

from __future__ import annotations

from knarr.api.coordination import v1
from knarr.api.printing import age
from knarr.api.resources import Column, Resource

COLUMNS = (
    Column("Holder", lambda lease, now_s: (lease.spec.holder_identity if lease.spec else None) or ""),
    Column("Age", lambda lease, now_s: age(lease.metadata.creation_timestamp, now_s)),
)

RESOURCES = (Resource(v1.Lease, "coordination.k8s.io", "v1", "Lease", "leases", "lease", True, columns=COLUMNS),)
