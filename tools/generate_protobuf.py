"""Writes knarr/apiserver/protobuf_numbers.py: the numbers that the fields of our types have in protobuf.

The facts come from the descriptors that any kubectl carries (gzipped FileDescriptorProtos):

    python tools/generate_protobuf.py /usr/bin/kubectl

A field that upstream's Go type embeds (a Volume's source) stands in a message of its own: its number is a path, `2.4`.
A message younger than the kubectl is looked up in the newest beta of its group: its numbers stay when it becomes v1.
"""

from __future__ import annotations

import importlib
import pkgutil
import re
import sys
import zlib
from pathlib import Path
from typing import Any

import msgspec

import knarr.api
from knarr.api.types import Struct
from knarr.apiserver.protobuf import wire_fields

GZIP = b"\x1f\x8b\x08"
FILE_MAX_BYTES = 400_000
TARGET = Path(__file__).parent.parent / "knarr/apiserver/protobuf_numbers.py"
NOT_IN_KUBECTL = """
apiregistration.v1.APIService: metadata=1 spec=2 status=3
apiregistration.v1.APIServiceCondition: lastTransitionTime=3 message=5 reason=4 status=2 type=1
apiregistration.v1.APIServiceSpec: caBundle=5 group=2 groupPriorityMinimum=7 insecureSkipTLSVerify=4 service=1 version=3 versionPriority=8
apiregistration.v1.APIServiceStatus: conditions=1
apiregistration.v1.ServiceReference: name=2 namespace=1 port=3
"""  # noqa: E501
"""From upstream's generated.proto of kube-aggregator."""

Message = dict[str, tuple[int, str]]
"""Field → its number, and the message that it is, if any."""


def messages(binary: bytes) -> dict[str, Message]:
    """Every message of the API that a binary has descriptors of, by its full name."""
    found: dict[str, Message] = {}
    for start in (match.start() for match in re.finditer(re.escape(GZIP), binary)):
        try:
            text = zlib.decompressobj(31).decompress(binary[start : start + FILE_MAX_BYTES])
        except zlib.error:
            continue
        if b"generated.proto" not in text[:120]:
            continue
        file = list(wire_fields(text))
        package = next(value.decode() for number, value in file if number == 2)
        for number, value in file:
            if number == 4:
                name, fields = _message(value)
                found[f"{package}.{name}"] = fields
    return found


def _message(text: bytes) -> tuple[str, Message]:
    name, fields = "", {}
    for number, value in wire_fields(text):
        if number == 1:
            name = value.decode()
        elif number == 2:
            field: dict[int, Any] = dict(wire_fields(value))
            kind = field.get(6, b"").decode().removeprefix(".")
            fields[field[1].decode()] = (field[3], kind)
    return name, fields


def package_of(module: str) -> str:
    _, _, group, version = module.split(".")
    return f"k8s.io.apimachinery.pkg.apis.meta.{version}" if group == "meta" else f"k8s.io.api.{group}.{version}"


def newest(name: str, known: dict[str, Message]) -> str:
    """The message itself, or that of the newest beta (v1beta2 before v1beta1)."""
    package, _, kind = name.rpartition(".")
    group, _, version = package.rpartition(".")
    betas = (f"{group}.{version}beta{number}.{kind}" for number in range(9, 0, -1))
    return next((each for each in (name, *betas) if each in known), name)


def numbers(kind: type[Struct], name: str, known: dict[str, Message]) -> dict[str, str]:
    """JSON name → number (or path of numbers) of a type's fields."""
    wanted = {info.encode_name for info in msgspec.structs.fields(kind)}
    found: dict[str, str] = {}
    for field, (number, message) in known[name].items():
        if field in wanted:
            found[field] = str(number)
        elif message in known:
            inner = numbers(kind, message, known)
            found |= {each: f"{number}.{path}" for each, path in inner.items() if each not in found}
    return found


def main() -> None:
    known = messages(Path(sys.argv[1]).resolve().read_bytes())
    lines = []
    for info in sorted(pkgutil.walk_packages(knarr.api.__path__, "knarr.api."), key=lambda info: info.name):
        if not re.fullmatch(r"knarr\.api\.\w+\.v\d\w*", info.name):
            continue
        module = importlib.import_module(info.name)
        for kind in sorted(vars(module).values(), key=lambda value: getattr(value, "__name__", "")):
            if not (isinstance(kind, type) and issubclass(kind, Struct) and kind.__module__ == info.name):
                continue
            name = newest(f"{package_of(info.name)}.{kind.__name__}", known)
            if name in known and (fields := numbers(kind, name, known)):
                group = info.name.removeprefix("knarr.api.")
                written = " ".join(f"{field}={path}" for field, path in sorted(fields.items()))
                lines.append(f"{group}.{kind.__name__}: {written}")
    head = '"""The numbers of fields in protobuf, a type a line; tools/generate_protobuf.py writes this."""\n\n'
    body = "\n".join(sorted((*lines, *NOT_IN_KUBECTL.strip().splitlines())))
    TARGET.write_text(f'# ruff: noqa: E501\n{head}NUMBERS = """\n{body}\n"""\n')
    print(f"{len(lines)} types", file=sys.stderr)


if __name__ == "__main__":
    main()
