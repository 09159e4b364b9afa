"""Every kind that knarr serves, in the order of discovery."""

from __future__ import annotations

from knarr.api.apps.resources import RESOURCES as APPS
from knarr.api.coordination.resources import RESOURCES as COORDINATION
from knarr.api.core.resources import RESOURCES as CORE
from knarr.api.discovery.resources import RESOURCES as DISCOVERY
from knarr.api.node.resources import RESOURCES as NODE
from knarr.api.resources import Registry
from knarr.api.scheduling.resources import RESOURCES as SCHEDULING


def built_in() -> Registry:
    """A registry of the built-in kinds."""
    return Registry((*CORE, *APPS, *COORDINATION, *DISCOVERY, *NODE, *SCHEDULING))
