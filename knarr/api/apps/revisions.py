"""ControllerRevisions: what a StatefulSet or DaemonSet was at a moment, kept so that one can go back to it."""

from __future__ import annotations

from collections.abc import Iterable

from knarr.api.apps.v1 import ControllerRevision
from knarr.api.core.templates import age_column
from knarr.api.core.validate_values import validate_not_negative
from knarr.api.errors import Cause, invalid, required
from knarr.api.meta.owners import controller_of
from knarr.api.printing import NONE
from knarr.api.resources import Column, Strategy


class ControllerRevisionRules(Strategy[ControllerRevision]):
    def validate(self, obj: ControllerRevision) -> Iterable[Cause]:
        if obj.data is None:
            yield required("data", "data is mandatory")
        yield from validate_not_negative(obj.revision, "revision")

    def validate_update(self, obj: ControllerRevision, old: ControllerRevision) -> Iterable[Cause]:
        if obj.data != old.data:
            yield invalid("data", obj.data, "field is immutable")


def _controller(obj: ControllerRevision, now_s: float) -> str:
    """daemonset.apps/logs"""
    owner = controller_of(obj)
    if owner is None:
        return NONE
    group = owner.api_version.rpartition("/")[0]
    kind = f"{owner.kind}.{group}" if group else owner.kind
    return f"{kind.lower()}/{owner.name}"


CONTROLLER_REVISION_COLUMNS = (
    Column("Controller", _controller),
    Column("Revision", lambda obj, now_s: obj.revision),
    age_column(),
)
