"""`knarr apply`: bring objects to what files say, on machines that have no kubectl.

What is not there is created. What is there is changed by a three-way merge, as `kubectl apply` does it: the annotation
`kubectl.kubernetes.io/last-applied-configuration` holds what was applied last time, so what a file no longer says is
taken away, while what others set (defaults, a scaled replica count, an injected sidecar) stays.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from knarr.cli import kubeconfig as kubeconfigs
from knarr.cli.connection import ApiFailure, Connection
from knarr.cli.exit_codes import FAILED, OK, USAGE
from knarr.cli.failures import described
from knarr.cli.kubeconfig import KubeconfigError

LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
SUFFIXES = {".yaml", ".yml", ".json"}
MANIFEST_BYTES_MAX = 32 << 20

MERGE_KEYS: Mapping[str, tuple[str, ...]] = {
    "containers": ("name",),
    "initContainers": ("name",),
    "ephemeralContainers": ("name",),
    "volumes": ("name",),
    "imagePullSecrets": ("name",),
    "env": ("name",),
    "volumeMounts": ("mountPath",),
    "volumeDevices": ("devicePath",),
    "hostAliases": ("ip",),
    "topologySpreadConstraints": ("topologyKey", "whenUnsatisfiable"),
    "secrets": ("name",),
    "ports": ("containerPort", "port", "protocol"),
}
"""Lists whose elements have a name of their own, and the fields that make it: those that upstream's types mark with
x-kubernetes-patch-merge-key. Every other list is taken as a whole."""


class ManifestError(Exception):
    """A file that holds something else than Kubernetes objects."""


class _Metadata(Struct):
    name: str | None = None
    namespace: str | None = None
    annotations: dict[str, Any] | None = None


class _Manifest(Struct, rename="camel"):
    """What every object must have to be brought to a server; the rest is for that one to judge."""

    api_version: str
    kind: str
    metadata: _Metadata


def apply(files: Sequence[str], *, namespace: str, kubeconfig: str) -> int:
    """Apply every object in order, namespaces first; answers the exit code."""
    try:
        objects = sorted(read(files), key=lambda obj: obj["kind"] != "Namespace")
        access = kubeconfigs.read(Path(kubeconfig) if kubeconfig else kubeconfigs.default_path())
        connection = Connection(access)
    except (ManifestError, KubeconfigError) as error:
        print(f"knarr: {error}", file=sys.stderr)
        return USAGE
    except OSError as error:
        print(f"knarr: {described(error)}", file=sys.stderr)
        return USAGE
    code = OK
    for obj in objects:
        try:
            print(apply_object(connection, obj, namespace or access.namespace), flush=True)
        except (ApiFailure, OSError) as error:
            why = described(error) if isinstance(error, OSError) else error
            print(f"knarr: {obj['kind']} {obj['metadata']['name']}: {why}", file=sys.stderr)
            code = FAILED
    connection.close()
    return code


def apply_object(connection: Connection, obj: dict[str, Any], namespace: str) -> str:
    """Create or change one object; answers what was done, in kubectl's words."""
    kind = connection.kind(obj["apiVersion"], obj["kind"])
    metadata = obj["metadata"]
    group = obj["apiVersion"].partition("/")[0] if "/" in obj["apiVersion"] else ""
    called = f"{obj['kind'].lower()}{'.' + group if group else ''}/{metadata['name']}"
    if kind.namespaced:
        obj = {**obj, "metadata": {**metadata, "namespace": metadata.get("namespace") or namespace}}
        namespace = obj["metadata"]["namespace"]
    wanted = annotated(obj)
    query = {"fieldManager": "knarr-client-side-apply"}
    try:
        live = connection.get(kind.path(namespace, metadata["name"]))
    except ApiFailure as failure:
        if failure.code != 404:
            raise
        connection.send("POST", kind.path(namespace), wanted, query=query)
        return f"{called} created"
    last = json.loads(live["metadata"].get("annotations", {}).get(LAST_APPLIED, "{}"))
    merged = three_way_merge(last, wanted, live)
    patch = difference(live, merged)
    if not patch:
        return f"{called} unchanged"
    connection.send(
        "PATCH",
        kind.path(namespace, metadata["name"]),
        patch,
        content_type="application/merge-patch+json",
        query=query,
    )
    return f"{called} configured"


def read(files: Sequence[str]) -> Iterator[dict[str, Any]]:
    """The objects in files, in the files of folders (by name) and in standard input (-), lists taken apart."""
    for name in files:
        path = Path(name)
        if name == "-":
            yield from _objects("standard input", sys.stdin.read(MANIFEST_BYTES_MAX))
        elif path.is_dir():
            for each in sorted(path.iterdir()):
                if each.suffix in SUFFIXES:
                    yield from _objects(str(each), each.read_bytes())
        else:
            yield from _objects(name, path.read_bytes())


def annotated(obj: dict[str, Any]) -> dict[str, Any]:
    """The object with itself, as it was written, in its last-applied annotation."""
    metadata = obj["metadata"]
    others = {name: text for name, text in (metadata.get("annotations") or {}).items() if name != LAST_APPLIED}
    plain = {**obj, "metadata": {**metadata, "annotations": others}}
    text = json.dumps(plain, separators=(",", ":"), sort_keys=True) + "\n"
    return {**obj, "metadata": {**metadata, "annotations": {**others, LAST_APPLIED: text}}}


def three_way_merge(last: Any, wanted: Any, live: Any, field: str = "") -> Any:
    """`live`, with what `wanted` says, and without what `last` said and `wanted` no longer does."""
    if isinstance(wanted, dict) and isinstance(live, dict):
        before = last if isinstance(last, dict) else {}
        merged = {name: value for name, value in live.items() if name in wanted or name not in before}
        for name, value in wanted.items():
            if value is None:
                merged.pop(name, None)
            else:
                merged[name] = three_way_merge(before.get(name), value, live.get(name), name)
        return merged
    if isinstance(wanted, list) and isinstance(live, list) and field in MERGE_KEYS:
        return _merge_lists(last if isinstance(last, list) else [], wanted, live, field)
    return wanted


def _merge_lists(last: list[Any], wanted: list[Any], live: list[Any], field: str) -> list[Any]:
    """Elements by their key: those of the file in its order, then those that only others put there."""
    before, there = _by_key(last, field), _by_key(live, field)
    asked = _by_key(wanted, field)
    merged = [three_way_merge(before.get(key), element, there.get(key)) for key, element in asked.items()]
    return merged + [element for key, element in there.items() if key not in asked and key not in before]


def _by_key(elements: list[Any], field: str) -> dict[Any, Any]:
    def key(element: Any) -> Any:
        if not isinstance(element, dict):
            return json.dumps(element)
        defaults = {"protocol": "TCP"}
        return tuple(element.get(part, defaults.get(part)) for part in MERGE_KEYS[field])

    return {key(element): element for element in elements}


def difference(before: Any, after: Any) -> dict[str, Any]:
    """The JSON merge patch (RFC 7386) that makes `after` of `before`, both objects."""
    patch: dict[str, Any] = {name: None for name in before if name not in after}
    for name, value in after.items():
        held = before.get(name)
        if isinstance(value, dict) and isinstance(held, dict):
            if inner := difference(held, value):
                patch[name] = inner
        elif name not in before or value != held:
            patch[name] = value
    return patch


def _objects(source: str, text: str | bytes) -> Iterator[dict[str, Any]]:
    import yaml

    class Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
        """YAML as Kubernetes reads it: a date is text."""

        yaml_implicit_resolvers = {
            first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
            for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
        }

    try:
        # As JSON has it: keys are text, and there is nothing else than what JSON can say.
        documents = [json.loads(json.dumps(each, allow_nan=False)) for each in yaml.load_all(text, Loader)]
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        raise ManifestError(f"{source}: {error}") from None
    for document in documents:
        if document is None:
            continue
        if isinstance(document, dict) and document.get("kind") == "List":
            items = document.get("items") or []
            if not isinstance(items, list):
                raise ManifestError(f"{source}: a List whose items are no list")
            for item in items:
                yield _checked(source, item)
        else:
            yield _checked(source, document)


def _checked(source: str, obj: Any) -> dict[str, Any]:
    if not isinstance(obj, dict):
        raise ManifestError(f"{source}: not a Kubernetes object")
    for field in ("apiVersion", "kind", "metadata"):
        if not obj.get(field):
            raise ManifestError(f"{source}: an object without {field}")
    try:
        found = msgspec.convert(obj, _Manifest)
    except msgspec.ValidationError as error:
        raise ManifestError(f"{source}: {error}") from None
    if not found.metadata.name:
        raise ManifestError(f"{source}: {found.kind} without metadata.name")
    return obj
