"""Every kind that knarr serves, in the order of discovery."""

from __future__ import annotations

from knarr.api.apps.resources import RESOURCES as APPS
from knarr.api.autoscaling.resources import RESOURCES as AUTOSCALING
from knarr.api.batch.resources import RESOURCES as BATCH
from knarr.api.coordination.resources import RESOURCES as COORDINATION
from knarr.api.core.resources import RESOURCES as CORE
from knarr.api.discovery.resources import RESOURCES as DISCOVERY
from knarr.api.policy.resources import RESOURCES as POLICY
from knarr.api.resources import Registry


def built_in() -> Registry:
    """A registry of the built-in kinds."""
    return Registry((*CORE, *APPS, *AUTOSCALING, *BATCH, *COORDINATION, *DISCOVERY, *POLICY))
