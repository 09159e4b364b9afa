"""What can be done with a kind, as OpenAPI tells it: its paths, and the operations on each.

Names, answers and parameters are those of upstream's documents, which clients are generated from:
`listCoreV1NamespacedPod` stays what it is. Everything is told in the form of version 2; openapi_v3.py makes version 3.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from knarr.api.authentication.v1 import TokenRequest
from knarr.api.autoscaling.v1 import Scale
from knarr.api.core.v1 import Binding
from knarr.api.meta.v1 import DeleteOptions, Status, WatchEvent
from knarr.api.policy.v1 import Eviction
from knarr.api.resources import Resource
from knarr.apiserver import openapi_parameters as parameters
from knarr.apiserver.discovery import subresource
from knarr.apiserver.openapi_schemas import META, Schemas
from knarr.client.client import APPLY_PATCH, JSON_PATCH, MERGE_PATCH, STRATEGIC_MERGE_PATCH

ANY = ["*/*"]
FORMS = ["application/json", "application/yaml"]
STREAMED = [*FORMS, "application/json;stream=watch"]
PATCHES = [JSON_PATCH, MERGE_PATCH, STRATEGIC_MERGE_PATCH, APPLY_PATCH]
METHODS = {"get": "get", "put": "update", "post": "create", "delete": "delete", "patch": "patch"}
PROXIED = ("get", "put", "post", "delete", "options", "head", "patch")
UNAUTHORIZED = {"401": {"description": "Unauthorized"}}
STATUS_TEXTS = {"200": "OK", "201": "Created", "202": "Accepted"}
NAMESPACE = parameters.in_path("namespace", "Namespace of the object.")
STRING = {"type": "string"}
POSTED: dict[str, type[Any]] = {"Binding": Binding, "Eviction": Eviction, "TokenRequest": TokenRequest}
"""Kinds of subresources that are posted only."""
GVK = dict[str, str]


def gvk_of(resource: Resource) -> GVK:
    return {"group": resource.group, "version": resource.version, "kind": resource.kind}


def group_words(group: str) -> tuple[str, str]:
    """A group as operations and tags have it: rbac.authorization.k8s.io → RbacAuthorization, rbacAuthorization."""
    whole = "".join(map(_capital, (group.removesuffix(".k8s.io") or "core").split(".")))
    return whole, whole[:1].lower() + whole[1:]


def _capital(word: str) -> str:
    return word[:1].upper() + word[1:]


def paths(resource: Resource, schemas: Schemas) -> dict[str, Any]:
    """All paths of a resource and its subresources."""
    return _Paths(resource, schemas).found


def item(operations: dict[str, dict[str, Any]], here: Iterable[dict[str, Any]] = ()) -> dict[str, Any]:
    """A path with its operations. What all operations are given stands once, beside them."""
    listed = [operation["parameters"] for operation in operations.values()]
    common = [each for each in listed[0] if each["in"] != "body" and all(each in other for other in listed)]
    made: dict[str, Any] = {}
    for method, operation in operations.items():
        rest = [each for each in operation["parameters"] if each not in common]
        made[method] = {key: value for key, value in operation.items() if key != "parameters"}
        if rest:
            made[method]["parameters"] = sorted(rest, key=_order)
    if beside := sorted([*here, *common], key=_order):
        made["parameters"] = beside
    return made


def _order(parameter: dict[str, Any]) -> tuple[str, str]:
    return parameter["name"], parameter["in"]


class _Paths:
    def __init__(self, resource: Resource, schemas: Schemas) -> None:
        self.found: dict[str, Any] = {}
        self._resource = resource
        self._schemas = schemas
        self._gvk = gvk_of(resource)
        self._words, tag = group_words(resource.group)
        self._tags = [f"{tag}_{resource.version}"]
        self._scope = "Namespaced" if resource.namespaced else ""
        self._object = schemas.reference(resource.type, self._gvk)
        namespace = "{namespace}" if resource.namespaced else None
        self._here = [NAMESPACE] if resource.namespaced else []
        self._name = parameters.in_path("name", f"Name of the {resource.kind}.")
        self._collection(resource.path(namespace))
        self._single(resource.path(namespace, "{name}"))
        for name in resource.subresources:
            self._subresource(resource.path(namespace, "{name}", name), name)
        self._watches()

    def _add(self, path: str, operations: dict[str, Any], here: Iterable[dict[str, Any]] = ()) -> None:
        if operations:
            self.found[path] = item(operations, here)

    def _operation(
        self,
        identity: tuple[str, str],
        action: str,
        text: str,
        answers: dict[str, Any],
        *,
        given: Iterable[str] = (),
        body: dict[str, Any] | None = None,
        consumes: list[str] = ANY,
        produces: list[str] = FORMS,
        gvk: GVK | None = None,
        pretty: bool = True,
    ) -> dict[str, Any]:
        """`identity`: the verb and the rest of the operation's name; `answers`: the schemas by status."""
        verb, rest = identity
        listed = parameters.query((*given, "pretty") if pretty else given)
        return {
            "consumes": consumes,
            "description": text,
            "operationId": f"{verb}{self._words}{_capital(self._resource.version)}{rest}",
            "parameters": [body, *listed] if body else listed,
            "produces": produces,
            "responses": {
                code: {"description": STATUS_TEXTS[code], "schema": schema} for code, schema in answers.items()
            }
            | UNAUTHORIZED,
            "schemes": ["https"],
            "tags": self._tags,
            "x-kubernetes-action": action,
            "x-kubernetes-group-version-kind": gvk or self._gvk,
        }

    def _collection(self, path: str) -> None:
        resource, kind = self._resource, self._resource.kind
        operations: dict[str, Any] = {}
        if "list" in resource.verbs:
            listed = self._schemas.list_of(resource, self._gvk)
            text = f"Lists or watches objects of the kind {kind}."
            more: dict[str, Any] = {"given": parameters.LISTING, "produces": STREAMED}
            operations["get"] = self._operation(("list", f"{self._scope}{kind}"), "list", text, {"200": listed}, **more)
            if resource.namespaced:
                everywhere = self._operation(("list", f"{kind}ForAllNamespaces"), "list", text, {"200": listed}, **more)
                self._add(resource.path(), {"get": everywhere})
        if "create" in resource.verbs:
            operations["post"] = self._operation(
                ("create", f"{self._scope}{kind}"),
                "post",
                f"Creates an object of the kind {kind}.",
                dict.fromkeys(("200", "201", "202"), self._object),
                given=parameters.WRITING,
                body=parameters.body(self._object),
            )
        if "deletecollection" in resource.verbs:
            operations["delete"] = self._operation(
                ("delete", f"Collection{self._scope}{kind}"),
                "deletecollection",
                f"Deletes all objects of the kind {kind} that match.",
                {"200": self._status()},
                given=(*parameters.DELETING, *parameters.CHOOSING),
                body=self._delete_options(),
            )
        self._add(path, operations, self._here)

    def _single(self, path: str) -> None:
        resource, kind = self._resource, self._resource.kind
        operations = self._parts(("get", "put", "patch"), resource.verbs, self._object, self._gvk, "", kind)
        if "delete" in resource.verbs:
            answer = self._object if resource.strategy.returns_deleted else self._status()
            operations["delete"] = self._operation(
                ("delete", f"{self._scope}{kind}"),
                "delete",
                f"Deletes an object of the kind {kind}.",
                {"200": answer, "202": answer},
                given=parameters.DELETING,
                body=self._delete_options(),
            )
        self._add(path, operations, [self._name, *self._here])

    def _parts(
        self, methods: Iterable[str], verbs: Iterable[str], schema: dict[str, Any], gvk: GVK, suffix: str, what: str
    ) -> dict[str, Any]:
        """Reading and writing an object, or a part of it."""
        operations: dict[str, Any] = {}
        rest = f"{self._scope}{self._resource.kind}{suffix}"
        for method in methods:
            if METHODS[method] not in verbs:
                continue
            match method:
                case "get":
                    made = self._operation(("read", rest), "get", f"Reads {what}.", {"200": schema}, gvk=gvk)
                case "put":
                    made = self._operation(
                        ("replace", rest),
                        "put",
                        f"Replaces {what}.",
                        {"200": schema, "201": schema},
                        given=parameters.WRITING,
                        body=parameters.body(schema),
                        gvk=gvk,
                    )
                case _:
                    made = self._operation(
                        ("patch", rest),
                        "patch",
                        f"Changes {what} in part, or applies a configuration to it.",
                        {"200": schema, "201": schema},
                        given=parameters.PATCHING,
                        body=parameters.body(self._schemas.scalar(f"{META}.Patch")),
                        consumes=PATCHES,
                        gvk=gvk,
                    )
            operations[method] = made
        return operations

    def _subresource(self, path: str, name: str) -> None:
        resource = self._resource
        group, version, kind, verbs = subresource(resource, name)
        gvk = {"group": group, "version": version, "kind": kind}
        suffix = _capital(name)
        here = [self._name, *self._here]
        if kind in parameters.CONNECTING:
            self._connections(path, suffix, gvk, PROXIED if name == "proxy" else ("get", "post"))
        elif name == "log":
            log = self._operation(
                ("read", f"{self._scope}{resource.kind}{suffix}"),
                "get",
                f"Reads the log of a container of a {resource.kind}.",
                {"200": STRING},
                given=parameters.LOG,
                produces=["text/plain", *FORMS],
            )
            self._add(path, {"get": log}, here)
        elif posted := POSTED.get(kind):
            schema = self._schemas.reference(posted, gvk)
            post = self._operation(
                ("create", f"{self._scope}{resource.kind}{suffix}"),
                "post",
                f"Creates a {kind} for a {resource.kind}.",
                dict.fromkeys(("200", "201", "202"), schema),
                given=parameters.WRITING,
                body=parameters.body(schema),
                gvk=gvk,
            )
            self._add(path, {"post": post}, [parameters.in_path("name", f"Name of the {kind}."), *self._here])
        else:
            schema = self._schemas.reference(Scale, gvk) if kind == "Scale" else self._object
            what = f"{name} of a {resource.kind}"
            self._add(path, self._parts(("get", "put", "patch"), verbs, schema, gvk, suffix, what), here)

    def _connections(self, path: str, suffix: str, gvk: GVK, methods: Iterable[str]) -> None:
        kind = self._resource.kind
        name = parameters.in_path("name", f"Name of the {kind} to connect to.")
        places = [(path, "", [name, *self._here])]
        if suffix == "Proxy":
            rest = parameters.in_path("path", "What follows in the URL of what is connected to.")
            places.append((f"{path}/{{path}}", "WithPath", [name, *self._here, rest]))
        for where, ending, here in places:
            operations = {
                method: self._operation(
                    ("connect", f"{_capital(method)}{self._scope}{kind}{suffix}{ending}"),
                    "connect",
                    f"Connects to the {suffix.lower()} of a {kind}, by {method.upper()}.",
                    {"200": STRING},
                    given=parameters.CONNECTING[gvk["kind"]],
                    produces=ANY,
                    gvk=gvk,
                    pretty=False,
                )
                for method in methods
            }
            self._add(where, operations, here)

    def _watches(self) -> None:
        """The deprecated paths under /watch/."""
        resource, kind = self._resource, self._resource.kind
        if "watch" not in resource.verbs or "list" not in resource.verbs:
            return
        namespace = "{namespace}" if resource.namespaced else None
        root = f"/apis/{resource.group}/{resource.version}" if resource.group else f"/api/{resource.version}"
        event = self._schemas.reference(WatchEvent, self._gvk | {"kind": "WatchEvent"})

        def watch(path: str, rest: str, action: str, what: str, here: list[dict[str, Any]]) -> None:
            text = f"Watches {what}. Deprecated: list with the parameter watch."
            made = self._operation(
                ("watch", rest), action, text, {"200": event}, given=parameters.LISTING, produces=STREAMED
            )
            self._add(f"{root}/watch{path.removeprefix(root)}", {"get": made}, here)

        several, single = f"objects of the kind {kind}", f"an object of the kind {kind}"
        watch(resource.path(namespace), f"{self._scope}{kind}List", "watchlist", several, self._here)
        watch(resource.path(namespace, "{name}"), f"{self._scope}{kind}", "watch", single, [self._name, *self._here])
        if resource.namespaced:
            watch(resource.path(), f"{kind}ListForAllNamespaces", "watchlist", several, [])

    def _status(self) -> dict[str, Any]:
        return self._schemas.reference(Status, {"group": "", "version": "v1", "kind": "Status"})

    def _delete_options(self) -> dict[str, Any]:
        options = self._schemas.reference(DeleteOptions, self._gvk | {"kind": "DeleteOptions"})
        return parameters.body(options, required=False)
