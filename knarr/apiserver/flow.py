"""How much the door takes on at once: limits on requests in flight, a time limit for each, and the count of both.

Reads and writes have a limit each (upstream's --max-requests-inflight). What is over it gets 429 and when to come back,
but for administrators, who must be able to mend an overloaded server. Watches, logs and what else lasts as long as its
client likes take no place. Only requests from outside pass here: the parts of this process don't compete with users.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from knarr.api.errors import APIError, BadRequest, Timeout, TooManyRequests
from knarr.apiserver.metrics import Metrics
from knarr.apiserver.requests import ResourcePath, flag
from knarr.client.transport import Request, User

READS_MAX, WRITES_MAX = 400, 200
"""In flight at once; upstream's defaults."""
TIMEOUT_S = 60.0
"""For a request that doesn't last by nature; a client may ask for less with ?timeout."""
RETRY_AFTER_S = 1
PRIVILEGED = "system:masters"
READING = frozenset({"GET", "HEAD", "OPTIONS"})
LASTING = frozenset({"attach", "exec", "log", "portforward", "proxy"})
DURATION = re.compile(r"(\d+(?:\.\d+)?)(ns|us|µs|ms|s|m|h)")
UNITS_S = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}


class Flow:
    """The requests of one server that are in flight."""

    def __init__(self, metrics: Metrics, *, reads_max: int = READS_MAX, writes_max: int = WRITES_MAX) -> None:
        self._limits = {"readOnly": reads_max, "mutating": writes_max}
        self._now = {"readOnly": 0, "mutating": 0}
        self._metrics = metrics

    @contextmanager
    def place(self, request: Request, user: User, path: ResourcePath | None) -> Iterator[None]:
        """Hold a place while the request is worked on. Raises TooManyRequests when there is none."""
        if lasting(request, path):
            yield
            return
        kind = "readOnly" if request.method in READING else "mutating"
        if self._now[kind] >= self._limits[kind] and PRIVILEGED not in user.groups:
            self._metrics.refused(kind)
            raise TooManyRequests("too many requests, please try again later", retry_after_s=RETRY_AFTER_S)
        self._now[kind] += 1
        self._metrics.in_flight(kind, self._now[kind])
        try:
            yield
        finally:
            self._now[kind] -= 1
            self._metrics.in_flight(kind, self._now[kind])


def lasting(request: Request, path: ResourcePath | None) -> bool:
    """Whether a request goes on as long as its client likes."""
    return path is not None and (path.subresource in LASTING or flag(request.query, "watch"))


def time_limit_s(request: Request, path: ResourcePath | None) -> float | None:
    """How long a request may take; None for those that last. Raises BadRequest."""
    if lasting(request, path):
        return None
    asked = request.query.get("timeout")
    if not asked:
        return TIMEOUT_S
    seconds = duration_s(asked)
    if seconds is None:
        raise BadRequest(f'invalid timeout specified in the request URL: "{asked}" is no duration such as 10s or 1m30s')
    return min(seconds, TIMEOUT_S) or TIMEOUT_S


def duration_s(text: str) -> float | None:
    """Seconds of a duration as Go writes it (1m30s); None when it is none."""
    if text == "0":
        return 0.0
    if not re.fullmatch(rf"(?:{DURATION.pattern})+", text):
        return None
    return sum(float(amount) * UNITS_S[unit] for amount, unit in DURATION.findall(text))


def timed_out() -> APIError:
    return Timeout("Timeout: request did not complete within requested timeout - context deadline exceeded")
