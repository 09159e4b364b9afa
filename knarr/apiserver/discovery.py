"""What is served: /api, /apis, their groups and versions, plain and aggregated (KEP-3352), and /version.

Versions that somebody else serves (knarr.apiserver.aggregator) stand among our own, where their APIServices put them.
"""

from __future__ import annotations

import base64
import hashlib
import json
import platform
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

import knarr
from knarr import KUBERNETES_VERSION, __version__
from knarr.api.apiregistration.priorities import group_priority, in_order, version_priority
from knarr.api.meta.v1 import APIResource
from knarr.api.meta.version import Info
from knarr.api.resources import Registry, Resource
from knarr.apiserver.aggregator import Remote

AGGREGATED = "application/json;g=apidiscovery.k8s.io;v={};as=APIGroupDiscoveryList"
"""The media type of aggregated discovery."""

PROXY_VERBS = ("create", "delete", "get", "patch", "update")
SUBRESOURCES = {
    ("", "pods", "attach"): ("", "v1", "PodAttachOptions", ("create", "get")),
    ("", "pods", "binding"): ("", "v1", "Binding", ("create",)),
    ("", "pods", "ephemeralcontainers"): ("", "v1", "Pod", ("get", "patch", "update")),
    ("", "pods", "eviction"): ("policy", "v1", "Eviction", ("create",)),
    ("", "pods", "exec"): ("", "v1", "PodExecOptions", ("create", "get")),
    ("", "pods", "log"): ("", "v1", "Pod", ("get",)),
    ("", "nodes", "proxy"): ("", "v1", "NodeProxyOptions", PROXY_VERBS),
    ("", "pods", "proxy"): ("", "v1", "PodProxyOptions", PROXY_VERBS),
    ("", "services", "proxy"): ("", "v1", "ServiceProxyOptions", PROXY_VERBS),
    ("", "pods", "portforward"): ("", "v1", "PodPortForwardOptions", ("create", "get")),
    ("", "pods", "resize"): ("", "v1", "Pod", ("get", "patch", "update")),
    ("", "namespaces", "finalize"): ("", "v1", "Namespace", ("update",)),
    ("certificates.k8s.io", "certificatesigningrequests", "approval"): (
        "certificates.k8s.io",
        "v1",
        "CertificateSigningRequest",
        ("get", "patch", "update"),
    ),
    ("", "serviceaccounts", "token"): ("authentication.k8s.io", "v1", "TokenRequest", ("create",)),
}
"""(group, resource, subresource) → its kind and verbs, where it isn't status or scale."""


def subresource(resource: Resource, name: str) -> tuple[str, str, str, tuple[str, ...]]:
    """Group, version, kind and verbs of a subresource."""
    if name == "scale":
        return "autoscaling", "v1", "Scale", ("get", "patch", "update")
    if name == "status":
        return resource.group, resource.version, resource.kind, ("get", "patch", "update")
    return SUBRESOURCES[resource.group, resource.plural, name]


def version() -> Info:
    """The answer of /version."""
    major, minor, _ = KUBERNETES_VERSION.removeprefix("v").split(".")
    return Info(
        major=major,
        minor=minor,
        emulation_major=major,
        emulation_minor=minor,
        min_compatibility_major=major,
        min_compatibility_minor=minor,
        git_version=f"{KUBERNETES_VERSION}+knarr-{__version__}",
        git_tree_state="clean",
        git_commit=_commit(),
        build_date=_build_date(),
        go_version=f"python{platform.python_version()}",
        compiler=platform.python_implementation(),
        platform=f"linux/{'amd64' if platform.machine() == 'x86_64' else platform.machine()}",
    )


@cache
def _commit() -> str:
    """Of which commit the package is: as its installer noted, where it came from a repository."""
    try:
        noted = json.loads(distribution("knarr").read_text("direct_url.json") or "{}")
    except (PackageNotFoundError, ValueError):
        return ""
    return str(noted.get("vcs_info", {}).get("commit_id", ""))


@cache
def _build_date() -> str:
    """When the package was put where it is."""
    written_s = Path(knarr.__file__).stat().st_mtime
    return datetime.fromtimestamp(written_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


ISSUER = ("/.well-known/openid-configuration", "/openid/v1/jwks")


def paths(registry: Registry, remotes: Iterable[Remote]) -> list[str]:
    """/: what can be asked for besides objects."""
    served = [(group, version) for group, versions in _groups(registry, remotes) for version in versions]
    groups = {path for group, version in served for path in (f"/apis/{group}", f"/apis/{group}/{version}")}
    always = ("/api", "/api/v1", "/apis", "/healthz", "/livez", "/metrics", "/openapi/v2", "/openapi/v3", "/readyz")
    return sorted({*always, *ISSUER, "/version", *groups})


def core_versions(address: str) -> dict[str, Any]:
    """/api"""
    return {
        "kind": "APIVersions",
        "versions": ["v1"],
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": address}],
    }


def groups(registry: Registry, remotes: Iterable[Remote]) -> dict[str, Any]:
    """/apis"""
    return {
        "kind": "APIGroupList",
        "apiVersion": "v1",
        "groups": [_group(name, versions) for name, versions in _groups(registry, remotes)],
    }


def group(registry: Registry, remotes: Iterable[Remote], name: str) -> dict[str, Any] | None:
    """/apis/<group>"""
    for found, versions in _groups(registry, remotes):
        if found == name:
            return {"kind": "APIGroup", "apiVersion": "v1"} | _group(found, versions)
    return None


def _groups(registry: Registry, remotes: Iterable[Remote]) -> list[tuple[str, list[str]]]:
    """All groups but the core group, and their versions, the preferred ones first."""
    found = {
        (group, version): (group_priority(group), version_priority(group, version))
        for group, version in {(resource.group, resource.version) for resource in registry if resource.group}
    }
    for remote in remotes:
        found[remote.group, remote.version] = remote.priorities
    return in_order((group, version, *priorities) for (group, version), priorities in found.items() if group)


def _group(name: str, versions: list[str]) -> dict[str, Any]:
    listed = [{"groupVersion": f"{name}/{version}", "version": version} for version in versions]
    return {"name": name, "versions": listed, "preferredVersion": listed[0]}


def resources(registry: Registry, group_name: str, group_version: str) -> dict[str, Any] | None:
    """/api/v1 and /apis/<group>/<version>; None when it isn't served."""
    listed: list[dict[str, Any]] = []
    for resource in sorted(registry, key=lambda resource: resource.plural):
        if (resource.group, resource.version) != (group_name, group_version):
            continue
        entry: dict[str, Any] = {
            "name": resource.plural,
            "singularName": resource.singular,
            "namespaced": resource.namespaced,
            "kind": resource.kind,
            "verbs": list(resource.verbs),
        }
        if resource.short_names:
            entry["shortNames"] = list(resource.short_names)
        if resource.categories:
            entry["categories"] = list(resource.categories)
        if "watch" in resource.verbs:  # What is only looked at when somebody asks is in no store.
            entry["storageVersionHash"] = storage_version_hash(registry.kept(resource))
        listed.append(entry)
        for name in resource.subresources:
            sub_group, sub_version, kind, verbs = subresource(resource, name)
            sub: dict[str, Any] = {
                "name": f"{resource.plural}/{name}",
                "singularName": "",
                "namespaced": resource.namespaced,
                "kind": kind,
                "verbs": list(verbs),
            }
            if (sub_group, sub_version) != (resource.group, resource.version):
                sub |= {"group": sub_group, "version": sub_version}
            listed.append(sub)
    if not listed:
        return None
    name = f"{group_name}/{group_version}" if group_name else group_version
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": name, "resources": listed}


def storage_version_hash(kept: Resource) -> str:
    """Tells one version in the store from another; as upstream works it out."""
    told = f"{kept.group}/{kept.version}/{kept.kind}"
    return base64.b64encode(hashlib.sha256(told.encode()).digest()[:8]).decode()


def aggregated(registry: Registry, remotes: Sequence[Remote], *, core: bool, version: str = "v2") -> dict[str, Any]:
    """apidiscovery.k8s.io APIGroupDiscoveryList: all groups and resources in one answer. kubectl before 1.30 asks for
    v2beta1, which looks the same."""
    others = {(remote.group, remote.version): remote for remote in remotes}

    def told(group: str, version: str) -> dict[str, Any]:
        other = others.get((group, version))
        if other is None:
            listed, freshness = _aggregated_resources(registry, group, version), "Current"
        else:
            listed, freshness = list(_aggregated_of(other.resources)), "Current" if other.current else "Stale"
        return {"version": version, "resources": listed, "freshness": freshness}

    items = [
        {"metadata": {"name": name} if name else {}, "versions": [told(name, each) for each in versions]}
        for name, versions in ([("", ["v1"])] if core else _groups(registry, remotes))
    ]
    return {
        "kind": "APIGroupDiscoveryList",
        "apiVersion": f"apidiscovery.k8s.io/{version}",
        "metadata": {},
        "items": items,
    }


def _aggregated_of(resources: Sequence[APIResource]) -> Iterator[dict[str, Any]]:
    """What a backend lists, in the aggregated form. A subresource may come without what it is one of."""
    found: dict[str, dict[str, Any]] = {}
    for resource in resources:
        name, _, part = resource.name.partition("/")
        kind = _kind(resource.group or "", resource.version or "", resource.kind)
        scope = "Namespaced" if resource.namespaced else "Cluster"
        whole = found.setdefault(
            name,
            {"resource": name, "responseKind": _kind("", "", ""), "scope": scope, "singularResource": "", "verbs": []},
        )
        if part:
            told = {"subresource": part, "responseKind": kind, "verbs": resource.verbs}
            whole.setdefault("subresources", []).append(told)
            continue
        whole |= {"responseKind": kind, "scope": scope, "singularResource": resource.singular_name}
        whole["verbs"] = resource.verbs
        if resource.short_names:
            whole["shortNames"] = resource.short_names
        if resource.categories:
            whole["categories"] = resource.categories
    yield from found.values()


def _aggregated_resources(registry: Registry, group_name: str, group_version: str) -> list[dict[str, Any]]:
    listed = []
    for resource in sorted(registry, key=lambda resource: resource.plural):
        if (resource.group, resource.version) != (group_name, group_version):
            continue
        entry: dict[str, Any] = {
            "resource": resource.plural,
            "responseKind": _kind("", "", resource.kind),
            "scope": "Namespaced" if resource.namespaced else "Cluster",
            "singularResource": resource.singular,
            "verbs": list(resource.verbs),
        }
        if resource.short_names:
            entry["shortNames"] = list(resource.short_names)
        if resource.categories:
            entry["categories"] = list(resource.categories)
        if resource.subresources:
            entry["subresources"] = [_aggregated_subresource(resource, name) for name in resource.subresources]
        listed.append(entry)
    return listed


def _aggregated_subresource(resource: Resource, name: str) -> dict[str, Any]:
    group_name, group_version, kind, verbs = subresource(resource, name)
    own = (group_name, group_version) == (resource.group, resource.version)
    told = _kind("", "", kind) if own else _kind(group_name, group_version, kind)
    return {"subresource": name, "responseKind": told, "verbs": list(verbs)}


def _kind(group_name: str, group_version: str, kind: str) -> dict[str, str]:
    """Group and version are empty where they are those of the list."""
    return {"group": group_name, "version": group_version, "kind": kind}
