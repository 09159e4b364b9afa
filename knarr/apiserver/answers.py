"""How answers are made: JSON, YAML, a table or metadata only, as the client's Accept header asks."""

from __future__ import annotations

from typing import Any

import msgspec
import yaml

from knarr.api.errors import APIError, Cause, MethodNotAllowed, NotFound
from knarr.apiserver import forms
from knarr.apiserver.calls import Call
from knarr.apiserver.forms import Form
from knarr.client.transport import Answer, Request
from knarr.clock import Clock

TRUE = ("1", "t", "T", "true", "TRUE", "True")
FOR_PERSONS = ("curl", "Wget", "Mozilla/5.0")
JSON_HEADERS = {"content-type": "application/json"}


def failure(error: APIError, request: Request | None = None) -> Answer:
    """The answer that an error is."""
    try:
        body = msgspec.json.encode(error.status())
    except UnicodeEncodeError:
        # The message repeats what the client sent, and that was no text.
        error.message = error.message.encode("utf-8", "replace").decode()
        error.causes = ()
        body = msgspec.json.encode(error.status())
    answer = Answer(error.code, dict(JSON_HEADERS), body)
    if request:
        pretty(answer, request)
    if error.retry_after_s is not None:
        answer.headers["retry-after"] = str(error.retry_after_s)
    return answer


def plain(data: Any, request: Request, status: int = 200) -> Answer:
    """Any data as JSON."""
    return pretty(Answer(status, dict(JSON_HEADERS), msgspec.json.encode(data)), request)


def shown(call: Call, value: bytes, clock: Clock, status: int = 200, warnings: list[str] | None = None) -> Answer:
    """An object, kept as `value`, in the form that the client asked for."""
    accepted = forms.accepted(call.request.headers.get("accept", ""))
    forms.check(accepted, call.query)
    value = call.presented(value)
    if accepted.form is not Form.OBJECT:
        value = forms.shown(call.resource, value, accepted, clock.time_s(), call.query.get("includeObject", ""))
    answer = encoded(value, call.request, accepted, status)
    if warnings:
        answer.warnings = warnings
    return answer


def encoded(body: bytes, request: Request, accepted: forms.Accepted | None = None, status: int = 200) -> Answer:
    """JSON bytes, as they are or as YAML."""
    accepted = accepted or forms.accepted(request.headers.get("accept", ""))
    if accepted.yaml:
        text = yaml.safe_dump(msgspec.json.decode(body), sort_keys=False)
        return Answer(status, {"content-type": "application/yaml"}, text.encode())
    return pretty(Answer(status, dict(JSON_HEADERS), body), request)


def pretty(answer: Answer, request: Request) -> Answer:
    """Indented when the client says so, or is one that a person sits at (as upstream decides it)."""
    asked = request.query.get("pretty", "")
    if asked in TRUE or (not asked and request.headers.get("user-agent", "").startswith(FOR_PERSONS)):
        answer.body = msgspec.json.format(answer.body, indent=2)
    return answer


def success(request: Request, status: int = 200, **more: Any) -> Answer:
    """A Status that says so."""
    return plain({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", **more}, request, status)


def not_served() -> NotFound:
    return NotFound(
        "the server could not find the requested resource",
        causes=[Cause("UnexpectedServerResponse", "", "404 page not found")],
    )


def method_not_allowed() -> MethodNotAllowed:
    return MethodNotAllowed("the server does not allow this method on the requested resource")
