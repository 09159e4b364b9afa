"""Write the API types of knarr/api/<group>/<version>.py from the facts in upstream's swagger.json.

    python tools/generate_types.py PATH/TO/swagger.json

Names, types, required fields and merge rules are facts of the API; no text is taken over. Run it when the
API version moves; what it writes is ordinary code, formatted by ruff, and committed.
"""

from __future__ import annotations

import json
import keyword
import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

API = Path(__file__).parent.parent / "knarr" / "api"

GROUPS = {
    "io.k8s.api.core.v1": ("core", "v1"),
    "io.k8s.api.apps.v1": ("apps", "v1"),
    "io.k8s.api.batch.v1": ("batch", "v1"),
    "io.k8s.api.autoscaling.v1": ("autoscaling", "v1"),
    "io.k8s.api.autoscaling.v2": ("autoscaling", "v2"),
    "io.k8s.api.policy.v1": ("policy", "v1"),
    "io.k8s.api.networking.v1": ("networking", "v1"),
    "io.k8s.api.rbac.v1": ("rbac", "v1"),
    "io.k8s.api.storage.v1": ("storage", "v1"),
    "io.k8s.api.discovery.v1": ("discovery", "v1"),
    "io.k8s.api.coordination.v1": ("coordination", "v1"),
    "io.k8s.api.events.v1": ("events", "v1"),
    "io.k8s.api.authentication.v1": ("authentication", "v1"),
    "io.k8s.api.authorization.v1": ("authorization", "v1"),
    "io.k8s.api.certificates.v1": ("certificates", "v1"),
    "io.k8s.api.admissionregistration.v1": ("admissionregistration", "v1"),
    "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1": ("apiextensions", "v1"),
    "io.k8s.kube-aggregator.pkg.apis.apiregistration.v1": ("apiregistration", "v1"),
    "io.k8s.api.flowcontrol.v1": ("flowcontrol", "v1"),
    "io.k8s.api.node.v1": ("node", "v1"),
    "io.k8s.api.scheduling.v1": ("scheduling", "v1"),
    "io.k8s.api.resource.v1": ("resource", "v1"),
    "io.k8s.apimachinery.pkg.apis.meta.v1": ("meta", "v1"),
}

SCALARS = {
    "io.k8s.apimachinery.pkg.api.resource.Quantity": "Quantity",
    "io.k8s.apimachinery.pkg.util.intstr.IntOrString": "IntOrString",
    "io.k8s.apimachinery.pkg.apis.meta.v1.MicroTime": "MicroTime",
    "io.k8s.apimachinery.pkg.apis.meta.v1.Time": "Time",
    "io.k8s.apimachinery.pkg.runtime.RawExtension": "RawObject",
    "io.k8s.apimachinery.pkg.apis.meta.v1.FieldsV1": "RawJSON",
    "io.k8s.apimachinery.pkg.apis.meta.v1.Patch": "RawObject",
    "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSON": "RawObject",
    "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrArray": "RawObject",
    "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrBool": "RawObject",
    "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrStringArray": "RawObject",
}
ZEROS = {
    "str": '""',
    "Int32": "0",
    "Int64": "0",
    "bool": "False",
    "float": "0.0",
    "bytes": 'b""',
    "RawObject": "None",
}
ZEROS |= {"Quantity": '"0"', "IntOrString": "0"}
HEAD = ("api_version", "kind", "metadata")


def python_name(json_name: str) -> str:
    """clusterIPs -> cluster_ips, podCIDR -> pod_cidr, $ref -> ref."""
    name = json_name.lstrip("$").replace("-", "_")
    name = re.sub(r"([A-Z]+)s(?![a-z])", lambda m: m.group(1).capitalize() + "s", name)
    name = re.sub(r"([A-Z]+)([A-Z][a-z])", r"\1_\2", name)
    name = re.sub(r"([a-z0-9])([A-Z])", r"\1_\2", name).lower()
    return (
        name + "_"
        if keyword.iskeyword(name) or name in ("bool", "int", "str", "list", "dict", "bytes", "atomic")
        else name
    )


def camel(name: str) -> str:
    head, *rest = name.split("_")
    return head + "".join(part.capitalize() for part in rest)


class Module:
    """One file to write: a group's version."""

    def __init__(self, group: str, version: str) -> None:
        self.group, self.version = group, version
        self.used: dict[str, set[str]] = defaultdict(set)
        self.classes: dict[str, str] = {}
        self.needs: dict[str, set[str]] = defaultdict(set)
        """The classes whose zero value a class makes: they must stand above it."""

    def type_of(self, schema: dict[str, Any]) -> str:
        if "$ref" in schema:
            return self.reference(schema["$ref"].removeprefix("#/definitions/"))
        kind = schema.get("type")
        if kind == "array":
            return f"list[{self.type_of(schema['items'])}]"
        if kind == "object":
            item = self.type_of(schema.get("additionalProperties", {}))
            # A null in a map is kept: as the zero time, as upstream keeps it.
            return f"dict[str, {item}{' | None' if item == 'Time' else ''}]"
        if kind == "string":
            if schema.get("format") == "byte":
                return "bytes"
            return "str"
        if kind == "integer":
            if schema.get("format") == "int32":
                self.used["knarr.api.types"].add("Int32")
                return "Int32"
            self.used["knarr.api.types"].add("Int64")
            return "Int64"
        if kind == "boolean":
            return "bool"
        if kind == "number":
            return "float"
        self.used["knarr.api.types"].add("RawObject")
        return "RawObject"

    def reference(self, name: str) -> str:
        if name in SCALARS:
            self.used["knarr.api.types"].add(SCALARS[name])
            return SCALARS[name]
        package, _, class_name = name.rpartition(".")
        group, version = GROUPS[package]
        if (group, version) != (self.group, self.version):
            self.used[f"knarr.api.{group}.{version}"].add(class_name)
        return class_name

    def add(self, class_name: str, definition: dict[str, Any]) -> None:
        gvks = definition.get("x-kubernetes-group-version-kind", [])
        properties = definition.get("properties", {})
        required = set(definition.get("required", []))
        whole = len(gvks) == 1 and "apiVersion" in properties and "kind" in properties
        base = "Struct"
        lines = [f"class {class_name}({base}):"]
        if whole:
            gvk = gvks[0]
            group_version = f"{gvk['group']}/{gvk['version']}" if gvk["group"] else gvk["version"]
            lines.append(f'    api_version: str = always("{group_version}")')
            lines.append(f'    kind: str = always("{gvk["kind"]}")')
            self.used["knarr.api.types"].add("always")
            if "metadata" in properties:
                meta = self.type_of(properties["metadata"])
                lines.append(f"    metadata: {meta} = always({meta})")
        if definition.get("x-kubernetes-map-type") == "atomic":
            lines.insert(1, "    atomic = True\n")
        for json_name, schema in properties.items():
            name = python_name(json_name)
            if whole and name in HEAD:
                continue
            lines.append("    " + self.field(name, json_name, schema, json_name in required))
        if len(lines) == 1:
            lines.append("    pass")
        self.used["knarr.api.types"].add("Struct")
        body = "\n".join(lines)
        self.classes[class_name] = body
        self.needs[class_name] = set(re.findall(r"always\((\w+)", body))

    def field(self, name: str, json_name: str, schema: dict[str, Any], required: bool) -> str:
        kind = self.type_of(schema)
        rename = json_name if camel(name) != json_name else None
        merge = self.merge(schema)
        shown = f"Annotated[{kind}, {merge}]" if merge else kind
        container = kind.startswith(("list[", "dict["))
        if required:
            self.used["knarr.api.types"].add("always")
            if container:
                zero = "[]" if kind.startswith("list[") else "{}"
            elif kind == "Time":
                return f"{name}: {shown} | None = None"
            elif kind == "MicroTime":
                return f"{name}: {shown} | None = always(None)"
            else:
                zero = ZEROS.get(kind, kind)
            suffix = f', name="{rename}"' if rename else ""
            return f"{name}: {shown} = always({zero}{suffix})"
        if kind == "RawJSON":
            default = 'RawJSON(b"")'
        elif container:
            default = "[]" if kind.startswith("list[") else "{}"
        else:
            default, shown = "None", f"{shown} | None"
        if rename:
            self.used["knarr.api.types"].add("named")
            return f'{name}: {shown} = named("{rename}", {default})'
        return f"{name}: {shown} = {default}"

    def merge(self, schema: dict[str, Any]) -> str:
        arguments = []
        list_type = schema.get("x-kubernetes-list-type")
        if list_type in ("map", "set"):
            arguments.append(f'"{list_type}"')
        if keys := schema.get("x-kubernetes-list-map-keys"):
            arguments.append(f"keys={tuple(keys)!r}".replace("'", '"'))
        if key := schema.get("x-kubernetes-patch-merge-key"):
            arguments.append(f'patch_key="{key}"')
        if strategy := schema.get("x-kubernetes-patch-strategy"):
            arguments.append(f"strategy={tuple(strategy.split(','))!r}".replace("'", '"'))
        if kind := schema.get("x-kubernetes-map-type"):
            arguments.append(f'map_type="{kind}"')
        if not arguments:
            return ""
        self.used["knarr.api.types"].add("Merge")
        self.used["typing"].add("Annotated")
        return f"Merge({', '.join(arguments)})"

    def ordered(self) -> list[str]:
        """The classes by name, each below those that it needs."""
        done: dict[str, str] = {}

        def put(name: str) -> None:
            if name in done or name not in self.classes:
                return
            for needed in sorted(self.needs[name] - {name}):
                put(needed)
            done[name] = self.classes[name]

        for name in sorted(self.classes):
            put(name)
        return list(done.values())

    def text(self) -> str:
        imports = "\n".join(
            f"from {module} import {', '.join(sorted(names))}" for module, names in sorted(self.used.items())
        )
        title = "What all kinds share" if self.group == "meta" else f"The types of the API group {self.group}"
        head = f'"""{title}, {self.version}; knarr.api.types tells how to read a field."""\n\n'
        return (
            head + "from __future__ import annotations\n\n" + imports + "\n\n\n" + "\n\n\n".join(self.ordered()) + "\n"
        )


def main() -> None:
    definitions = json.loads(Path(sys.argv[1]).read_text())["definitions"]
    modules = {package: Module(*place) for package, place in GROUPS.items()}
    for name, definition in definitions.items():
        package, _, class_name = name.rpartition(".")
        # A list is made on the way out, from stored bytes: no type needed.
        is_list = class_name.endswith("List") and "items" in definition.get("properties", {})
        if package in modules and name not in SCALARS and not is_list:
            modules[package].add(class_name, definition)
    written = []
    for module in modules.values():
        path = API / module.group / f"{module.version}.py"
        path.parent.mkdir(exist_ok=True)
        (path.parent / "__init__.py").touch()
        path.write_text(module.text())
        written.append(str(path))
    subprocess.run([sys.executable, "-m", "ruff", "format", "-q", *written], check=True)
    subprocess.run([sys.executable, "-m", "ruff", "check", "-q", "--fix", *written], check=True)
    subprocess.run([sys.executable, "-m", "ruff", "format", "-q", *written], check=True)


if __name__ == "__main__":
    main()
