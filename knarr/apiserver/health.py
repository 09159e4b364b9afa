"""/healthz, /livez and /readyz: each check by name, and which may be left out (KEP-1623)."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from knarr.apiserver.requests import flag
from knarr.client.transport import Answer, Request

PLAIN = {"content-type": "text/plain; charset=utf-8", "x-content-type-options": "nosniff"}
ENDPOINTS = ("healthz", "livez", "readyz")


class Health:
    """The named checks of a server. A check answers None, or what is wrong."""

    def __init__(self) -> None:
        self.checks: dict[str, Callable[[], str | None]] = {"ping": lambda: None, "log": lambda: None}
        self.readiness: dict[str, Callable[[], str | None]] = {}
        """Checks of /readyz alone: a server that waits for them is alive."""

    def answer(self, request: Request) -> Answer | None:
        """None when the path is not about health."""
        endpoint, _, name = request.path.strip("/").partition("/")
        if endpoint not in ENDPOINTS:
            return None
        checks = self.checks | self.readiness if endpoint == "readyz" else self.checks
        if name:
            checks = {found: check for found, check in checks.items() if found == name}
            if not checks:
                return Answer(404, dict(PLAIN), b"404 page not found\n")
            excluded: set[str] = set()
        else:
            excluded = _excluded(request)
        lines: list[str] = []
        failed = False
        for found, check in checks.items():
            if found in excluded:
                lines.append(f"[+]{found} excluded: ok")
            elif check() is None:
                lines.append(f"[+]{found} ok")
            else:
                # What is wrong may tell of the inside: it goes to the log of whoever set the check, not to anybody.
                lines.append(f"[-]{found} failed: reason withheld")
                failed = True
        lines += [
            f'warn: some health checks cannot be excluded: no matches for "{name}"'
            for name in sorted(excluded - checks.keys())
        ]
        if failed:
            return Answer(500, dict(PLAIN), "\n".join([*lines, f"{endpoint} check failed", ""]).encode())
        if name or not flag(request.query, "verbose"):
            return Answer(200, dict(PLAIN), b"ok")
        return Answer(200, dict(PLAIN), "\n".join([*lines, f"{endpoint} check passed", ""]).encode())


def _excluded(request: Request) -> set[str]:
    repeated: Mapping[str, list[str]] = request.repeated
    values = repeated.get("exclude") or [request.query.get("exclude", "")]
    return {name for value in values for name in value.split(",") if name}
