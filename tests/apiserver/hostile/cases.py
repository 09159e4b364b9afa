"""One bad request and the whole of its answer."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import pytest

from knarr.client.client import APPLY_PATCH, JSON_PATCH, MERGE_PATCH, STRATEGIC_MERGE_PATCH
from tests.apiserver.pipeline.door import CONFIG_MAPS, Door

REASONS = {
    400: "BadRequest",
    401: "Unauthorized",
    403: "Forbidden",
    404: "NotFound",
    405: "MethodNotAllowed",
    406: "NotAcceptable",
    409: "Conflict",
    410: "Expired",
    413: "RequestEntityTooLarge",
    415: "UnsupportedMediaType",
    422: "Invalid",
    429: "TooManyRequests",
    503: "ServiceUnavailable",
    504: "Timeout",
}
JSON, YAML = "application/json", "application/yaml"
PATCHES = {"JSON patch": JSON_PATCH, "merge patch": MERGE_PATCH, "strategic merge patch": STRATEGIC_MERGE_PATCH}
ALL_PATCHES = PATCHES | {"apply": APPLY_PATCH}


@dataclass(frozen=True)
class Case:
    """A request, and what it must be answered."""

    row: int
    what: str
    method: str
    path: str
    body: Any = None
    code: int = 400
    message: str = ""
    """A pattern that the whole message matches; empty for any."""
    causes: list[tuple[str, str]] | None = None
    """Reason and field of each; None where the Status has none."""
    media: str = JSON
    query: dict[str, str] = field(default_factory=dict)
    there: tuple[tuple[str, Any], ...] = ()
    """What is made before: path and body."""
    reason: str = ""
    more: dict[str, Any] = field(default_factory=dict)


def table(*cases: Case) -> Any:
    """The parameters of a test, each with the number of its row in its id."""
    return pytest.mark.parametrize("case", [pytest.param(case, id=f"row{case.row}-{case.what}") for case in cases])


async def refuse(door: Door, case: Case) -> dict[str, Any]:
    """Send it, and check the whole Status; nothing may be written, and the server still serves."""
    for path, body in case.there:
        await door.done("POST", path, body)
    revision = door.store.revision
    status, answer = await door(case.method, case.path, case.body, content_type=case.media, **case.query, **case.more)
    check(case, status, answer)
    assert door.store.revision == revision, "something was written"
    assert (await door("GET", CONFIG_MAPS))[0] == 200
    return dict(answer)


def check(case: Case, code: int, status: Any) -> None:
    """A Status with code, reason, message and causes, and with nothing else."""
    assert code == case.code, status
    assert set(status) <= {"kind", "apiVersion", "metadata", "status", "message", "reason", "details", "code"}
    assert (status["kind"], status["apiVersion"], status["status"]) == ("Status", "v1", "Failure")
    assert status["code"] == code
    assert status["reason"] == (case.reason or REASONS[code])
    assert isinstance(status["message"], str)
    assert status["message"]
    if case.message:
        assert re.fullmatch(case.message, status["message"], re.DOTALL), status["message"]
    found = [(cause["reason"], cause.get("field", "")) for cause in status.get("details", {}).get("causes", ())]
    assert found == (case.causes or []), status
    assert all(cause["message"] for cause in status.get("details", {}).get("causes", ()))
