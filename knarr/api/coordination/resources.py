"""The kinds of the group coordination.k8s.io, as they are served."""

from __future__ import annotations

from collections.abc import Iterable

from knarr.api.coordination import v1
from knarr.api.errors import Cause, invalid
from knarr.api.printing import age
from knarr.api.resources import Column, Strategy, served


class LeaseStrategy(Strategy[v1.Lease]):
    allow_create_on_update = True
    allow_unconditional_update = False

    def default(self, obj: v1.Lease) -> None:
        obj.spec = obj.spec or v1.LeaseSpec()

    def validate(self, obj: v1.Lease) -> Iterable[Cause]:
        spec = obj.spec or v1.LeaseSpec()
        if spec.lease_duration_seconds is not None and spec.lease_duration_seconds <= 0:
            yield invalid("spec.leaseDurationSeconds", spec.lease_duration_seconds, "must be greater than 0")
        if spec.lease_transitions is not None and spec.lease_transitions < 0:
            yield invalid("spec.leaseTransitions", spec.lease_transitions, "must be greater than or equal to 0")


COLUMNS = (
    Column("Holder", lambda lease, now_s: (lease.spec.holder_identity if lease.spec else None) or ""),
    Column("Age", lambda lease, now_s: age(lease.metadata.creation_timestamp, now_s)),
)

RESOURCES = (served(v1.Lease, "leases", strategy=LeaseStrategy(), columns=COLUMNS),)
