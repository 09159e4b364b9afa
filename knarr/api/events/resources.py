"""The kind of the group events.k8s.io: another view of the core group's events, which are kept."""

from __future__ import annotations

from knarr.api.core.v1 import Event as Kept
from knarr.api.events import conversion, v1
from knarr.api.resources import Conversion, served

RESOURCES = (
    served(
        v1.Event,
        "events",
        short_names=("ev",),
        strategy=conversion.EventRules(),
        conversion=Conversion(Kept, conversion.to_core, conversion.from_core),
        columns=conversion.COLUMNS,
    ),
)
