"""The parameters of requests, as OpenAPI tells of them: name, place, type and what they mean."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable
from typing import Any

import msgspec

QUERY: dict[str, tuple[str, str]] = {
    "allowWatchBookmarks": (
        "boolean",
        "Let a watch send events of the type BOOKMARK, which tell how far it has come. Servers may ignore it.",
    ),
    "command": ("string", "The program to run and its arguments, one a parameter. It isn't run in a shell."),
    "container": ("string", "The container of the pod. May be left out when there is only one."),
    "continue": ("string", "Go on with a list: the value of metadata.continue of the part before. Excludes watch."),
    "dryRun": ("string", "All: do everything but keep the change. No other value is allowed."),
    "fieldManager": (
        "string",
        "Name of who or what makes the change: up to 128 printable characters. Needed to apply.",
    ),
    "fieldSelector": ("string", "Only objects whose fields match, such as spec.nodeName=one. Default: all."),
    "fieldValidation": (
        "string",
        "What becomes of unknown fields and fields that stand twice: Ignore, Warn (tell of them in warnings) or Strict "
        "(refuse the request). Default Warn.",
    ),
    "follow": ("boolean", "Go on with the log as it grows. Default false."),
    "force": ("boolean", "Take fields that others manage when applying, rather than answer a conflict."),
    "gracePeriodSeconds": (
        "integer",
        "Seconds the object has to end; 0 deletes at once. Default: what its kind or the object says.",
    ),
    "ignoreStoreReadErrorWithClusterBreakingPotential": (
        "boolean",
        "Delete even what can no longer be read, past finalizers and preconditions. Dangerous. Default false.",
    ),
    "insecureSkipTLSVerifyBackend": ("boolean", "Don't check the certificate of the node that has the log."),
    "labelSelector": ("string", "Only objects whose labels match, such as app=web,tier!=db. Default: all."),
    "limit": (
        "integer",
        "How many objects to list at most. When there are more, metadata.continue gets the next part, of the same "
        "moment. Excludes watch.",
    ),
    "limitBytes": ("integer", "How many bytes of the log to send at most."),
    "orphanDependents": ("boolean", "Deprecated: true stands for propagationPolicy Orphan, false for Background."),
    "path": ("string", "What follows in the URL of the pod, service or node that is asked."),
    "ports": ("integer", "Ports to forward; needed over WebSocket."),
    "pretty": ("string", "true: indent the answer. Default false."),
    "previous": ("boolean", "The log of the container's run before this one. Default false."),
    "propagationPolicy": (
        "string",
        "What becomes of objects that this one owns: Orphan keeps them, Background deletes them afterwards, "
        "Foreground before. Default depends on the kind.",
    ),
    "resourceVersion": (
        "string",
        "Of a list: how recent it must be. Of a watch: where it begins. Default: the present state.",
    ),
    "resourceVersionMatch": (
        "string",
        "How resourceVersion is meant in a list: Exact, or NotOlderThan. Needs resourceVersion.",
    ),
    "sendInitialEvents": (
        "boolean",
        "Let a watch begin with an event for each object there is, and a BOOKMARK behind them. Needs "
        "resourceVersionMatch NotOlderThan.",
    ),
    "sinceSeconds": ("integer", "Only lines of the last so many seconds."),
    "stderr": ("boolean", "Carry the standard error. Default true."),
    "stdin": ("boolean", "Carry the standard input. Default false."),
    "stdout": ("boolean", "Carry the standard output. Default true."),
    "stream": ("string", "Which output to show: All, Stdout or Stderr. Default All."),
    "tailLines": ("integer", "How many lines from the end of the log to begin with. Default: all."),
    "timeoutSeconds": ("integer", "Seconds after which a list fails or a watch ends."),
    "timestamps": ("boolean", "Put the time before each line. Default false."),
    "tty": ("boolean", "Give the program a terminal. Default false."),
    "watch": ("boolean", "Tell the changes, as they come, in place of a list."),
}

WRITING = ("dryRun", "fieldManager", "fieldValidation")
PATCHING = (*WRITING, "force")
DELETING = (
    "dryRun",
    "gracePeriodSeconds",
    "ignoreStoreReadErrorWithClusterBreakingPotential",
    "orphanDependents",
    "propagationPolicy",
)
CHOOSING = (
    "continue",
    "fieldSelector",
    "labelSelector",
    "limit",
    "resourceVersion",
    "resourceVersionMatch",
    "sendInitialEvents",
    "timeoutSeconds",
)
LISTING = ("allowWatchBookmarks", *CHOOSING, "watch")
LOG = (
    "container",
    "follow",
    "insecureSkipTLSVerifyBackend",
    "limitBytes",
    "previous",
    "sinceSeconds",
    "stream",
    "tailLines",
    "timestamps",
)
CONNECTING = {
    "PodAttachOptions": ("container", "stderr", "stdin", "stdout", "tty"),
    "PodExecOptions": ("command", "container", "stderr", "stdin", "stdout", "tty"),
    "PodPortForwardOptions": ("ports",),
    "PodProxyOptions": ("path",),
    "ServiceProxyOptions": ("path",),
    "NodeProxyOptions": ("path",),
}
"""By the kind of the options."""

INLINE = ("dryRun", "fieldValidation")
"""Never told by reference: older kubectl look for these two in the operation itself, to see what the server can do."""


def query(names: Iterable[str]) -> list[dict[str, Any]]:
    """Parameters of the query."""
    return [
        {"description": text, "in": "query", "name": name, "type": kind, "uniqueItems": True}
        for name in names
        for kind, text in (QUERY[name],)
    ]


def in_path(name: str, text: str) -> dict[str, Any]:
    """A part of the path."""
    return {"description": text, "in": "path", "name": name, "required": True, "type": "string", "uniqueItems": True}


def body(schema: dict[str, Any], *, required: bool = True) -> dict[str, Any]:
    """What is sent with the request."""
    return {"in": "body", "name": "body", **({"required": True} if required else {}), "schema": schema}


def shared(paths: dict[str, Any]) -> dict[str, Any]:
    """Takes out parameters that stand more than once, and leaves references: /parameters of OpenAPI v2."""
    places = [place for item in paths.values() for place in (item, *_operations(item)) if "parameters" in place]
    seen: dict[str, int] = {}
    for place in places:
        for parameter in place["parameters"]:
            key = _key(parameter)
            seen[key] = seen.get(key, 0) + 1
    found: dict[str, Any] = {}
    for place in places:
        listed = []
        for parameter in place["parameters"]:
            key = _key(parameter)
            if seen[key] == 1 or parameter["name"] in INLINE:
                listed.append(parameter)
            else:
                found[key] = parameter
                listed.append({"$ref": f"#/parameters/{key}"})
        place["parameters"] = listed
    return dict(sorted(found.items()))


def _operations(item: dict[str, Any]) -> list[dict[str, Any]]:
    return [value for key, value in item.items() if key != "parameters"]


def _key(parameter: dict[str, Any]) -> str:
    digest = hashlib.sha256(msgspec.json.encode(parameter, order="sorted")).digest()
    return f"{parameter['name']}-{base64.urlsafe_b64encode(digest[:6]).decode()}"
