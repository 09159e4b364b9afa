"""/healthz, /livez and /readyz: each check by name, and which may be left out (KEP-1623)."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from knarr.client.transport import Answer, Request

PLAIN = {"content-type": "text/plain; charset=utf-8", "x-content-type-options": "nosniff"}
ENDPOINTS = ("healthz", "livez", "readyz")


class Health:
    """The named checks of a server. A check answers None, or what is wrong."""

    def __init__(self) -> None:
        self.checks: dict[str, Callable[[], str | None]] = {"ping": lambda: None, "log": lambda: None}
        self.readiness: dict[str, Callable[[], str | None]] = {}
        """Checks of /readyz alone: a server that waits for them is alive."""

    def hook(self, name: str) -> Callable[[], None]:
        """A check poststarthook/`name` of what is done once after the start; to be called when it is done."""
        done = False

        def finished() -> None:
            nonlocal done
            done = True

        self.checks[f"poststarthook/{name}"] = lambda: None if done else "not finished"
        return finished

    def answer(self, request: Request) -> Answer | None:
        """None when the path is not about health."""
        endpoint, _, name = request.path.strip("/").partition("/")
        if endpoint not in ENDPOINTS:
            return None
        checks = self.checks | self.readiness if endpoint == "readyz" else self.checks
        if name:
            return self._single(name, checks)
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
        if unknown := sorted(excluded - checks.keys()):
            listed = ",".join(f'"{name}"' for name in unknown)
            lines.append(f"warn: some health checks cannot be excluded: no matches for {listed}")
        if failed:
            return Answer(500, dict(PLAIN), "\n".join([*lines, f"{endpoint} check failed", ""]).encode())
        if "verbose" not in request.query:
            return Answer(200, dict(PLAIN), b"ok")
        return Answer(200, dict(PLAIN), "\n".join([*lines, f"{endpoint} check passed", ""]).encode())

    def _single(self, name: str, checks: Mapping[str, Callable[[], str | None]]) -> Answer:
        """One check has a path of its own; who may read that is told what is wrong."""
        if name not in checks:
            return Answer(404, dict(PLAIN), b"404 page not found\n")
        if fault := checks[name]():
            return Answer(500, dict(PLAIN), f"internal server error: {fault}\n".encode())
        return Answer(200, dict(PLAIN), b"ok")


def _excluded(request: Request) -> set[str]:
    values = request.repeated.get("exclude") or [request.query.get("exclude", "")]
    return {value for value in values if value}
