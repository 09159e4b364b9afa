"""Every kind that knarr serves, in the order of discovery."""

from __future__ import annotations

from knarr.api.apiextensions.resources import RESOURCES as APIEXTENSIONS
from knarr.api.apiregistration.resources import RESOURCES as APIREGISTRATION
from knarr.api.apps.resources import RESOURCES as APPS
from knarr.api.authentication.resources import RESOURCES as AUTHENTICATION
from knarr.api.authorization.resources import RESOURCES as AUTHORIZATION
from knarr.api.autoscaling.resources import RESOURCES as AUTOSCALING
from knarr.api.batch.resources import RESOURCES as BATCH
from knarr.api.certificates.resources import RESOURCES as CERTIFICATES
from knarr.api.coordination.resources import RESOURCES as COORDINATION
from knarr.api.core.resources import RESOURCES as CORE
from knarr.api.discovery.resources import RESOURCES as DISCOVERY
from knarr.api.events.resources import RESOURCES as EVENTS
from knarr.api.flowcontrol.resources import RESOURCES as FLOWCONTROL
from knarr.api.metrics.resources import RESOURCES as METRICS
from knarr.api.networking.resources import RESOURCES as NETWORKING
from knarr.api.node.resources import RESOURCES as NODE
from knarr.api.policy.resources import RESOURCES as POLICY
from knarr.api.rbac.resources import RESOURCES as RBAC
from knarr.api.resource.resources import RESOURCES as RESOURCE
from knarr.api.resources import Registry
from knarr.api.scheduling.resources import RESOURCES as SCHEDULING
from knarr.api.storage.resources import RESOURCES as STORAGE


def built_in() -> Registry:
    """A registry of the built-in kinds."""
    return Registry(
        (
            *CORE,
            *APIEXTENSIONS,
            *APIREGISTRATION,
            *APPS,
            *AUTHENTICATION,
            *AUTHORIZATION,
            *AUTOSCALING,
            *BATCH,
            *CERTIFICATES,
            *COORDINATION,
            *DISCOVERY,
            *EVENTS,
            *FLOWCONTROL,
            *NETWORKING,
            *NODE,
            *POLICY,
            *RBAC,
            *RESOURCE,
            *SCHEDULING,
            *STORAGE,
        )
    )


def with_metrics() -> Registry:
    """The built-in kinds, and those that say what nodes and pods use: upstream's clusters have them from an add-on."""
    return Registry((*built_in(), *METRICS))
