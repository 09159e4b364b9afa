"""What requests bring: objects, patches, options of a DELETE; each checked as it is read."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, cast

import msgspec

from knarr.api.decode import NESTING_MAX, convert, decode, decoder, duplicate_fields, plain_json, plain_yaml
from knarr.api.errors import BadRequest, Cause, Invalid, UnsupportedMediaType, invalid, not_supported, required
from knarr.api.meta import v1 as meta
from knarr.apiserver import protobuf
from knarr.apiserver.calls import Call
from knarr.apiserver.objects import DeleteOptions
from knarr.apiserver.patch import checked_operations, json_patch, merge_patch, unknown_members
from knarr.apiserver.requests import flag, number
from knarr.apiserver.strategic import go_value, strategic_merge_patch
from knarr.client.client import APPLY_PATCH, JSON_PATCH, MERGE_PATCH, STRATEGIC_MERGE_PATCH

YAML = "application/yaml"
OBJECT_FORMS = ("application/json", YAML, protobuf.MEDIA_TYPE, "")
"""Media types of an object in a body; without any it is JSON."""
PATCH_FORMS = (JSON_PATCH, MERGE_PATCH, STRATEGIC_MERGE_PATCH, APPLY_PATCH)


def object_of(call: Call, kind: type[Any], also: tuple[str, ...] = ()) -> tuple[Any, list[str]]:
    """The object in the body, of a kind. Raises BadRequest, UnsupportedMediaType.

    `also`: versions beside the kind's own in which it says the same.
    """
    media, validation = _offered(media_type(call), OBJECT_FORMS), call.validation
    if media == protobuf.MEDIA_TYPE:
        obj, warnings = convert(kind, protobuf.plain_protobuf(kind, call.request.body), validation=validation)
    else:
        obj, warnings = decode(kind, call.request.body, yaml_body=media == YAML, validation=validation)
    if obj.api_version in also:
        obj.api_version = kind().api_version
    if fault := _other_kind(kind, obj.api_version, obj.kind):
        raise BadRequest(fault)
    return obj, warnings


def _other_kind(kind: type[Any], version: Any, name: Any) -> str:
    """What is wrong with an object that says what it is; empty when it is of the kind that is meant."""
    wanted = _named(cast(Any, kind))
    if (version, name) == wanted:
        return ""
    return (
        f"the API version in the data ({version}, Kind={name}) does not match the expected "
        f"API version ({wanted[0]}, Kind={wanted[1]})"
    )


@functools.cache
def _named(kind: Any) -> tuple[str, str]:
    """The version and kind that an object says that it is of, without its saying so."""
    zero = kind()
    return zero.api_version, zero.kind


def _offered(media: str, forms: tuple[str, ...]) -> str:
    """A media type that is one of those. Raises UnsupportedMediaType."""
    if media not in forms:
        raise UnsupportedMediaType(
            "the body of the request was in an unknown format - accepted media types include: "
            + ", ".join(filter(None, forms))
        )
    return media


def media_type(call: Call) -> str:
    """Of the body, without its parameters."""
    return call.request.headers.get("content-type", "").partition(";")[0].strip().lower()


def applied_of(call: Call, version: str = "", kind: type[Any] | None = None) -> tuple[dict[str, Any], list[str]]:
    """The configuration in the body of an apply, and warnings; of the resource's own kind, or another's (a Scale).

    Raises BadRequest, Invalid.
    """
    if not call.query.get("fieldManager"):
        cause = required("fieldManager", "is required for apply patch")
        raise Invalid.of("meta.k8s.io", "PatchOptions", "", [cause])
    body, resource, path = call.request.body, call.resource, call.path
    is_json = body.lstrip()[:1] == b"{"
    config = plain_json(body) if is_json else plain_yaml(body)
    if not isinstance(config, dict):
        raise BadRequest("error decoding YAML: the body of an apply must be an object")
    wanted = (version, kind.__name__) if kind else (resource.group_version, resource.kind)
    given = config.get("apiVersion", ""), config.get("kind", "")
    if given != wanted:
        raise BadRequest(
            f"Incorrect version specified in apply patch. Specified patch version: {given[0]}, "
            f"Kind={given[1]}, expected: {wanted[0]}, Kind={wanted[1]}"
        )
    metadata = config.get("metadata")
    if not isinstance(metadata, dict):
        metadata = {}
    config["metadata"] = metadata
    if metadata.get("name") and metadata["name"] != path.name:
        raise BadRequest(
            f"the name of the object ({metadata['name']}) does not match the name on the URL ({path.name})"
        )
    if metadata.get("managedFields") is not None:
        raise BadRequest("metadata.managedFields must be nil")
    # Read as a whole object too: what is unknown, or stands twice, is told as for any other body.
    _, warnings = decode(kind or resource.type, body, yaml_body=not is_json, validation=call.validation)
    return config, warnings


class Patch(msgspec.Struct, frozen=True):
    """The body of a PATCH that is no apply, read."""

    kind: type[Any]
    validation: str
    apply: Callable[[Any], Any]
    faults: list[str]
    """Unknown and duplicate fields of the patch itself."""
    strategic: dict[str, Any] | None = None
    """The patch itself, when it is a strategic merge patch: messages show it; others show the patched object."""

    def __call__(self, data: Any) -> tuple[Any, list[str]]:
        """The object that the patch makes of plain data, and warnings. Raises Invalid, Unprocessable, BadRequest."""
        patched = self.apply(data)
        if not isinstance(patched, dict):
            raise BadRequest("the patched object is no object")
        zero = self.kind()
        version, name = patched.get("apiVersion") or zero.api_version, patched.get("kind") or zero.kind
        # A strategic merge patch changes fields of the kind that the URL names: what it says it is does not count.
        if self.strategic is None and (fault := _other_kind(self.kind, version, name)):
            raise self._invalid(patched, fault)
        try:
            obj, unknown = _typed(self.kind, patched | {"apiVersion": zero.api_version, "kind": zero.kind})
        except BadRequest as error:
            # What a patch makes of an object is the object's fault: 422, where a body would be a 400.
            raise self._invalid(
                patched, error.message.partition(f"cannot be handled as a {self.kind.__name__}: ")[2] or error.message
            ) from None
        faults = [*self.faults, *unknown] if self.validation != "Ignore" else []
        if faults and self.validation == "Strict":
            raise self._invalid(patched, f"strict decoding error: {', '.join(faults)}")
        return obj, faults

    def _invalid(self, patched: Any, fault: str) -> Invalid:
        strategic = self.strategic
        text = go_value(strategic) if strategic is not None else msgspec.json.encode(patched).decode()
        return Invalid.of("", "", "", [invalid("patch", text, fault)])


def _typed(kind: type[Any], data: dict[str, Any]) -> tuple[Any, list[str]]:
    """The object that JSON data says, and its unknown fields; one that has none is read in one go."""
    with suppress(msgspec.MsgspecError, ValueError, OverflowError, RecursionError):
        text = msgspec.json.encode(data)
        if text.count(b"{") + text.count(b"[") <= NESTING_MAX:
            return decoder(kind).decode(text), []
    return convert(kind, data)


def patch_of(call: Call, kind: type[Any]) -> Patch:
    """The patch in the body. Raises BadRequest, UnsupportedMediaType, TooLarge."""
    body = call.request.body
    media, validation = _offered(media_type(call), PATCH_FORMS), call.validation
    patch = plain_json(body)
    faults = duplicate_fields(patch, body) if validation != "Ignore" else []
    if media == JSON_PATCH:
        operations = checked_operations(patch)
        faults = [f"json patch {fault}" for fault in faults] + unknown_members(operations)
        return Patch(kind, validation, lambda data: json_patch(data, operations), faults)
    if not isinstance(patch, dict):
        came = "array" if isinstance(patch, list) else "value"
        raise BadRequest(
            f"error decoding patch: json: cannot unmarshal {came} into Go value of type map[string]interface {{}}"
        )
    if media == MERGE_PATCH:
        return Patch(kind, validation, lambda data: merge_patch(data, patch), faults)
    return Patch(kind, validation, lambda data: strategic_merge_patch(kind, data, patch), faults, patch)


def delete_options_of(call: Call) -> DeleteOptions:
    """From the body, or from the query. Raises BadRequest, Invalid."""
    data: dict[str, Any] = {}
    if call.request.body:
        media = _offered(media_type(call), OBJECT_FORMS)
        if media == protobuf.MEDIA_TYPE:
            data = protobuf.plain_protobuf(meta.DeleteOptions, call.request.body)
        else:
            data = plain_yaml(call.request.body) if media == YAML else plain_json(call.request.body)
        if not isinstance(data, dict) or data.get("kind", "DeleteOptions") not in (
            "DeleteOptions",
            call.resource.kind,
        ):
            raise BadRequest("the body of a DELETE must be DeleteOptions")
    asked, _ = convert(meta.DeleteOptions, data, validation="Ignore")
    if asked.grace_period_seconds is None:
        asked.grace_period_seconds = number(call.query, "gracePeriodSeconds")
    asked.propagation_policy = asked.propagation_policy or call.query.get("propagationPolicy")
    if asked.orphan_dependents is None and "orphanDependents" in call.query:
        asked.orphan_dependents = flag(call.query, "orphanDependents")
    unsafe = "ignoreStoreReadErrorWithClusterBreakingPotential"
    asked.ignore_store_read_error_with_cluster_breaking_potential = (
        asked.ignore_store_read_error_with_cluster_breaking_potential or flag(call.query, unsafe)
    )
    if asked.ignore_store_read_error_with_cluster_breaking_potential and not call.path.name:
        detail = "is not allowed with DELETECOLLECTION, try again after removing the option"
        raise Invalid.of("meta.k8s.io", "DeleteOptions", "", [invalid(unsafe, True, detail)])
    return read_delete_options(asked, dry_run=call.dry_run)


def read_delete_options(asked: meta.DeleteOptions, *, dry_run: bool) -> DeleteOptions:
    """DeleteOptions as they were sent, checked. Raises BadRequest, Invalid."""
    grace_s = asked.grace_period_seconds
    if grace_s is not None and grace_s < 0:
        raise BadRequest("gracePeriodSeconds must be a whole number, 0 or greater")
    policy = asked.propagation_policy or ""
    causes = [*_contradictions(asked, dry_run=dry_run)]
    if policy not in ("", "Background", "Foreground", "Orphan"):
        causes.append(not_supported("propagationPolicy", policy, ("Background", "Foreground", "Orphan")))
    if any(each != "All" for each in asked.dry_run):
        causes.append(not_supported("dryRun", asked.dry_run, ("All",)))
    if causes:
        raise Invalid.of("meta.k8s.io", "DeleteOptions", "", causes)
    if asked.orphan_dependents is not None:
        policy = "Orphan" if asked.orphan_dependents else "Background"
    preconditions = asked.preconditions or meta.Preconditions()
    return DeleteOptions(
        grace_period_s=grace_s,
        propagation_policy=policy,
        uid=preconditions.uid,
        resource_version=preconditions.resource_version,
        dry_run=dry_run or asked.dry_run == ["All"],
    )


def _contradictions(asked: meta.DeleteOptions, *, dry_run: bool) -> Iterator[Cause]:
    """Options that exclude each other."""
    if asked.orphan_dependents is not None and asked.propagation_policy:
        detail = "orphanDependents and deletionPropagation cannot be both set"
        yield invalid("propagationPolicy", asked.propagation_policy, detail)
    if not asked.ignore_store_read_error_with_cluster_breaking_potential:
        return
    given = {
        "dryRun": dry_run or asked.dry_run,
        "propagationPolicy": asked.propagation_policy,
        "orphanDependents": asked.orphan_dependents is not None,
        "gracePeriodSeconds": asked.grace_period_seconds is not None,
        "preconditions": asked.preconditions is not None,
    }
    for name in (name for name, value in given.items() if value):
        field = "ignoreStoreReadErrorWithClusterBreakingPotential"
        yield invalid(field, True, f"cannot be set together with .{name}")
