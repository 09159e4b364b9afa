"""Which pods a Service is for."""

from __future__ import annotations

from collections.abc import Mapping

from knarr.api.core.v1 import Service


def has_pods(service: Service) -> bool:
    """Services without a selector are filled by somebody else; an ExternalName is only a name."""
    return service.spec is not None and bool(service.spec.selector) and service.spec.type != "ExternalName"


def selects(service: Service, labels: Mapping[str, str]) -> bool:
    return service.spec is not None and service.spec.selector.items() <= labels.items()
