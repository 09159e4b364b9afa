"""The errors of the API: the same exception in process and over HTTP.

Each is a `Status` object of metav1 in the form of an exception: HTTP code, reason, message, details. A client gets
back the class that the server raised. Messages have upstream's shape: `pods "web" not found`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from msgspec import Struct


class Cause(Struct, frozen=True):
    """One fault in an object: `reason` as in metav1.CauseType, `field` as a path (spec.containers[0].name)."""

    reason: str
    field: str
    message: str


def required(field: str, detail: str = "") -> Cause:
    return Cause("FieldValueRequired", field, f"Required value{': ' + detail if detail else ''}")


def invalid(field: str, value: Any, detail: str) -> Cause:
    return Cause("FieldValueInvalid", field, f"Invalid value: {shown(value)}: {detail}")


def duplicate(field: str, value: Any) -> Cause:
    return Cause("FieldValueDuplicate", field, f"Duplicate value: {shown(value)}")


def not_supported(field: str, value: Any, supported: Sequence[str], *, in_order: bool = False) -> Cause:
    """`in_order`: what is offered is named in the order given, as upstream does in places."""
    offered = ", ".join(f'"{name}"' for name in (supported if in_order else sorted(supported)))
    message = f"Unsupported value: {shown(value)}" + (f": supported values: {offered}" if supported else "")
    return Cause("FieldValueNotSupported", field, message)


def forbidden(field: str, detail: str) -> Cause:
    return Cause("FieldValueForbidden", field, f"Forbidden: {detail}")


def too_long(field: str, limit: int) -> Cause:
    return Cause("FieldValueTooLong", field, f"Too long: may not be more than {limit} bytes")


def too_many(field: str, actual: int, limit: int) -> Cause:
    return Cause("FieldValueTooMany", field, f"Too many: {actual}: must have at most {limit} items")


def not_found_value(field: str, value: Any) -> Cause:
    return Cause("FieldValueNotFound", field, f"Not found: {shown(value)}")


def shown(value: Any) -> str:
    """A value as upstream's field errors print it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'
    if value is None:
        return "null"
    if isinstance(value, (int, float)):
        return str(value)
    import msgspec

    return msgspec.json.encode(value).decode()


class APIError(Exception):
    """A request that was refused. `str(error)` is the message for a person."""

    code: ClassVar[int] = 500
    reason: ClassVar[str] = "InternalError"
    continue_token = ""
    """Of an expired page of a list: how to go on all the same, without consistency."""

    def __init__(
        self,
        message: str,
        *,
        group: str = "",
        kind: str = "",
        name: str = "",
        uid: str = "",
        causes: Sequence[Cause] = (),
        retry_after_s: int | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.group = group
        self.kind = kind
        """In details.kind: the resource (pods) for not found and conflict, the kind (Pod) for invalid."""
        self.name = name
        self.uid = uid
        self.causes = tuple(causes)
        self.retry_after_s = retry_after_s

    def status(self) -> dict[str, Any]:
        """The metav1.Status object that goes out."""
        named = {"name": self.name, "group": self.group, "kind": self.kind, "uid": self.uid}
        details: dict[str, Any] = {key: value for key, value in named.items() if value}
        if self.causes:
            details["causes"] = [
                {"reason": cause.reason, "message": cause.message} | ({"field": cause.field} if cause.field else {})
                for cause in self.causes
            ]
        if self.retry_after_s is not None:
            details["retryAfterSeconds"] = self.retry_after_s
        status: dict[str, Any] = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {"continue": self.continue_token} if self.continue_token else {},
            "status": "Failure",
            "message": self.message,
        }
        if self.reason:
            status["reason"] = self.reason
        if details:
            status["details"] = details
        status["code"] = self.code
        return status

    @staticmethod
    def from_status(status: dict[str, Any], code: int = 500) -> APIError:
        """The exception that a server's Status stands for."""
        details = status.get("details") or {}
        reason = status.get("reason") or ""
        kind_of_error = BY_REASON.get(reason) or BY_CODE.get(status.get("code") or code) or InternalError
        return kind_of_error(
            status.get("message") or f"the server answered {code}",
            group=details.get("group", ""),
            kind=details.get("kind", ""),
            name=details.get("name", ""),
            uid=details.get("uid", ""),
            causes=[
                Cause(c.get("reason", ""), c.get("field", ""), c.get("message", ""))
                for c in details.get("causes") or ()
            ],
            retry_after_s=details.get("retryAfterSeconds"),
        )


class BadRequest(APIError):
    code, reason = 400, "BadRequest"


class Unauthorized(APIError):
    code, reason = 401, "Unauthorized"


class Forbidden(APIError):
    code, reason = 403, "Forbidden"


class NotFound(APIError):
    code, reason = 404, "NotFound"

    @staticmethod
    def of(group: str, plural: str, name: str) -> NotFound:
        return NotFound(f'{qualified(group, plural)} "{name}" not found', group=group, kind=plural, name=name)


class MethodNotAllowed(APIError):
    code, reason = 405, "MethodNotAllowed"


class NotAcceptable(APIError):
    code, reason = 406, "NotAcceptable"


class AlreadyExists(APIError):
    code, reason = 409, "AlreadyExists"

    @staticmethod
    def of(group: str, plural: str, name: str) -> AlreadyExists:
        message = f'{qualified(group, plural)} "{name}" already exists'
        return AlreadyExists(message, group=group, kind=plural, name=name)


class Conflict(APIError):
    code, reason = 409, "Conflict"

    @staticmethod
    def of(group: str, plural: str, name: str, detail: str) -> Conflict:
        message = f'Operation cannot be fulfilled on {qualified(group, plural)} "{name}": {detail}'
        return Conflict(message, group=group, kind=plural, name=name)


class Expired(APIError):
    """History that is gone (410); begin again with a new list."""

    code, reason = 410, "Expired"


class TooLarge(APIError):
    code, reason = 413, "RequestEntityTooLarge"


class UnsupportedMediaType(APIError):
    code, reason = 415, "UnsupportedMediaType"


class Invalid(APIError):
    code, reason = 422, "Invalid"

    @staticmethod
    def of(group: str, kind: str, name: str, causes: Sequence[Cause]) -> Invalid:
        errors = [f"{cause.field}: {cause.message}" if cause.field else cause.message for cause in causes]
        listed = errors[0] if len(errors) == 1 else "[" + ", ".join(errors) + "]"
        subject = f'{qualified(group, kind)} "{name}"'
        return Invalid(f"{subject} is invalid: {listed}", group=group, kind=kind, name=name, causes=causes)


class TooManyRequests(APIError):
    code, reason = 429, "TooManyRequests"


class InternalError(APIError):
    code, reason = 500, "InternalError"


class ServiceUnavailable(APIError):
    code, reason = 503, "ServiceUnavailable"


class Timeout(APIError):
    code, reason = 504, "Timeout"


def qualified(group: str, name: str) -> str:
    """deployments.apps; pods."""
    return f"{name}.{group}" if group else name


BY_REASON: dict[str, type[APIError]] = {
    error.reason: error
    for error in (
        BadRequest,
        Unauthorized,
        Forbidden,
        NotFound,
        MethodNotAllowed,
        NotAcceptable,
        AlreadyExists,
        Conflict,
        Expired,
        TooLarge,
        UnsupportedMediaType,
        Invalid,
        TooManyRequests,
        InternalError,
        ServiceUnavailable,
        Timeout,
    )
}
BY_CODE: dict[int, type[APIError]] = {error.code: error for error in reversed(BY_REASON.values())}
