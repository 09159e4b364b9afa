"""What probes and hooks of a container may not say: when they run, and the one thing that they do."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from knarr.api.core.v1 import GRPCAction, HTTPGetAction, Lifecycle, Probe, SleepAction
from knarr.api.core.validate_values import (
    header_name_faults,
    validate_not_negative,
    validate_port,
    validate_port_or_name,
)
from knarr.api.errors import Cause, forbidden, invalid, not_supported, required


def validate_probe(probe: Probe, path: str, *, readiness: bool = False) -> Iterable[Cause]:
    yield from _validate_handler(probe, path, 0)
    yield from validate_not_negative(probe.initial_delay_seconds, f"{path}.initialDelaySeconds")
    yield from validate_not_negative(probe.timeout_seconds, f"{path}.timeoutSeconds")
    yield from validate_not_negative(probe.period_seconds, f"{path}.periodSeconds")
    yield from validate_not_negative(probe.success_threshold, f"{path}.successThreshold")
    yield from validate_not_negative(probe.failure_threshold, f"{path}.failureThreshold")
    period_s = probe.termination_grace_period_seconds
    if readiness:
        if period_s is not None:
            yield invalid(f"{path}.terminationGracePeriodSeconds", period_s, "must not be set for readinessProbes")
        return
    if period_s is not None and period_s <= 0:
        yield invalid(f"{path}.terminationGracePeriodSeconds", period_s, "must be greater than 0")
    if probe.success_threshold not in (None, 1):
        yield invalid(f"{path}.successThreshold", probe.success_threshold, "must be 1")


def validate_lifecycle(lifecycle: Lifecycle, path: str, grace_s: int) -> Iterable[Cause]:
    if lifecycle.post_start:
        yield from _validate_handler(lifecycle.post_start, f"{path}.postStart", grace_s)
    if lifecycle.pre_stop:
        yield from _validate_handler(lifecycle.pre_stop, f"{path}.preStop", grace_s)


_HANDLERS = (
    ("exec", "exec"),
    ("http_get", "httpGet"),
    ("tcp_socket", "tcpSocket"),
    ("grpc", "grpc"),
    ("sleep", "sleep"),
)


def _validate_handler(handler: Any, path: str, grace_s: int) -> Iterable[Cause]:
    """Of a probe or a hook: exactly one way to do it."""
    found = False
    for field, name in _HANDLERS:
        action = getattr(handler, field, None)
        if action is None:
            continue
        place = f"{path}.{name}"
        if found:
            yield forbidden(place, "may not specify more than 1 handler type")
            continue
        found = True
        yield from _validate_action(action, name, place, grace_s)
    if not found:
        yield required(path, "must specify a handler type")


def _validate_action(action: Any, name: str, path: str, grace_s: int) -> Iterable[Cause]:
    if name == "exec":
        if not action.command:
            yield required(f"{path}.command")
    elif isinstance(action, HTTPGetAction):
        if not action.path:
            yield required(f"{path}.path")
        yield from validate_port_or_name(action.port, f"{path}.port")
        if action.scheme not in ("HTTP", "HTTPS"):
            yield not_supported(f"{path}.scheme", action.scheme, ("HTTP", "HTTPS"))
        for header in action.http_headers:
            for fault in header_name_faults(header.name):
                yield invalid(f"{path}.httpHeaders", header.name, fault)
    elif isinstance(action, GRPCAction):
        yield from validate_port(action.port, f"{path}.port")
    elif isinstance(action, SleepAction):
        if not 0 <= action.seconds <= grace_s:
            detail = f"must be non-negative and less than terminationGracePeriodSeconds ({grace_s})"
            yield invalid(path, action.seconds, detail)
    else:
        yield from validate_port_or_name(action.port, f"{path}.port")
