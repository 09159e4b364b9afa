"""Fills in knarr/edge/ingress/messages.txt: the number and type of each field that we send to Envoy.

    pip install xds-protos     (only for this tool; best in an environment of its own)
    python tools/generate_envoy_messages.py

The file itself says which messages and fields there are: write a message's name and, indented, its fields' names; what
stands behind a name is written anew. Numbers and types are facts of Envoy's published interface.
"""

from __future__ import annotations

import importlib
import pkgutil
import sys
from pathlib import Path

from google.protobuf import descriptor_pool  # type: ignore[import-untyped,unused-ignore]

TABLE = Path(__file__).parent.parent / "knarr/edge/ingress/messages.txt"
SCALARS = {1: "double", 4: "uint64", 5: "int32", 8: "bool", 9: "string", 12: "bytes", 13: "uint32", 3: "int64"}
MESSAGE, ENUM = 11, 14
NAMED_MAX = 20
"""An enum of more values (HTTP's status codes) is written as a number."""


def main() -> int:
    for package in ("envoy.config", "envoy.service", "envoy.extensions", "envoy.type", "xds"):
        try:
            root = importlib.import_module(package)
        except ImportError:
            continue
        for module in pkgutil.walk_packages(root.__path__, f"{package}."):
            if module.name.endswith("_pb2"):
                importlib.import_module(module.name)
    pool = descriptor_pool.Default()
    lines: list[str] = []
    message = None
    for line in TABLE.read_text().splitlines():
        if not line.strip() or line.startswith("#"):
            lines.append(line)
        elif not line.startswith(" "):
            message = pool.FindMessageTypeByName(line.strip())
            lines.append(line)
        else:
            lines.append("  " + described(message, line.split()[0]))
    TABLE.write_text("\n".join(lines) + "\n")
    return 0


def described(message: object, name: str) -> str:
    field = message.fields_by_name[name]  # type: ignore[attr-defined]
    kind = SCALARS.get(field.type)
    if field.type == MESSAGE:
        entry = field.message_type
        if entry.GetOptions().map_entry:
            value = entry.fields_by_name["value"]
            kind = f"map {SCALARS.get(value.type) or value.message_type.full_name}"
        else:
            kind = entry.full_name
    elif field.type == ENUM and len(field.enum_type.values) > NAMED_MAX:
        kind = "int32"
    elif field.type == ENUM:
        kind = "enum " + " ".join(f"{value.name}={value.number}" for value in field.enum_type.values)
    repeated = "" if kind.startswith("map ") or not field.is_repeated else "repeated "
    return f"{name} {field.number} {repeated}{kind}"


if __name__ == "__main__":
    sys.exit(main())
