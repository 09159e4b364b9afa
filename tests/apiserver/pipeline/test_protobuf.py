"""Bodies in protobuf: what kubectl create and client-go send. Messages are written here field by field."""

from __future__ import annotations

import struct
from pathlib import Path

import msgspec
import pytest

from knarr.api.apps.v1 import Deployment
from knarr.api.batch.v1 import Job
from knarr.api.coordination.v1 import Lease
from knarr.api.core.v1 import ConfigMap, Pod, Secret, Service
from knarr.api.errors import BadRequest
from knarr.api.meta.v1 import DeleteOptions
from knarr.api.registry import built_in
from knarr.apiserver.protobuf import MEDIA_TYPE, plain_protobuf, wire_fields
from tests.apiserver.pipeline.door import CONFIG_MAPS, Door, config_map


def varint(value: int) -> bytes:
    text = b""
    value &= (1 << 64) - 1
    while value > 0x7F:
        text += bytes((value & 0x7F | 0x80,))
        value >>= 7
    return text + bytes((value,))


def field(number: int, value: int | bytes | str) -> bytes:
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    data = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(data)) + data


def body(api_version: str, kind: str, *fields: bytes) -> bytes:
    known = field(1, api_version) + field(2, kind)
    return b"k8s\x00" + field(1, known) + field(2, b"".join(fields)) + field(3, "") + field(4, "")


def named(name: str) -> bytes:
    """metadata as Go writes it: zero values of what is no pointer included."""
    return field(1, field(1, name) + field(2, "") + field(3, "") + field(7, 0) + field(8, b""))


def test_zero_values_of_go_are_absent_and_those_of_pointers_stay() -> None:
    spec = field(1, 0) + field(5, 0) + field(6, 0)  # replicas (a pointer), minReadySeconds, revisionHistoryLimit (one)
    data = plain_protobuf(Deployment, body("apps/v1", "Deployment", named("web"), field(2, spec)))
    assert data == {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web"},
        "spec": {"replicas": 0, "revisionHistoryLimit": 0},
    }


def test_maps_bytes_and_embedded_messages() -> None:
    data = plain_protobuf(Secret, body("v1", "Secret", field(2, field(1, "k") + field(2, b"\x00\xff"))))
    assert data["data"] == {"k": "AP8="}
    volume = field(1, "v") + field(2, field(6, field(1, "secret-name")))  # Volume.volumeSource.secret.secretName
    empty = field(1, "e") + field(2, field(2, field(1, "")))  # Volume.volumeSource.emptyDir
    data = plain_protobuf(Pod, body("v1", "Pod", field(2, field(1, volume) + field(1, empty))))
    assert data["spec"]["volumes"] == [
        {"name": "v", "secret": {"secretName": "secret-name"}},
        {"name": "e", "emptyDir": {}},
    ]


def test_quantities_ports_and_times() -> None:
    limits = field(1, field(1, "cpu") + field(2, field(1, "500m")))
    container = field(1, "c") + field(8, limits)
    data = plain_protobuf(Pod, body("v1", "Pod", field(2, field(2, container))))
    assert data["spec"]["containers"][0]["resources"]["limits"] == {"cpu": "500m"}
    named_port = field(3, 80) + field(4, field(1, 1) + field(2, 0) + field(3, "http"))
    numbered = field(3, 81) + field(4, field(1, 0) + field(2, 8080) + field(3, ""))
    data = plain_protobuf(Service, body("v1", "Service", field(2, field(1, named_port) + field(1, numbered))))
    assert data["spec"]["ports"] == [{"port": 80, "targetPort": "http"}, {"port": 81, "targetPort": 8080}]
    moment = field(1, 1_700_000_000) + field(2, 5_000)
    data = plain_protobuf(Lease, body("coordination.k8s.io/v1", "Lease", field(2, field(4, moment))))
    assert data["spec"]["renewTime"] == "2023-11-14T22:13:20.000005Z"


def test_negative_numbers_and_unknown_fields() -> None:
    data = plain_protobuf(Job, body("batch/v1", "Job", field(2, field(1, -1) + field(999, "later"))))
    assert data["spec"] == {"parallelism": -1}
    data = plain_protobuf(DeleteOptions, body("v1", "DeleteOptions", field(1, 0) + field(4, "Foreground")))
    assert (data["gracePeriodSeconds"], data["propagationPolicy"]) == (0, "Foreground")


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{}",
        b"k8s\x00" + field(2, b"\x0a\x05abc"),
        b"k8s\x00" + field(2, b"\xff" * 20),
        b"k8s\x00" + field(2, field(1, 3)),
        b"k8s\x00" + field(2, b"\x0b"),
        b"k8s\x00" + field(2, field(1, field(1, b"\xff"))),
        b"k8s\x00" + field(1, 7),
        b"k8s\x00" + field(2, b"\x09" + struct.pack("<d", 1.0)),
    ],
)
def test_what_is_no_protobuf_of_the_kind_is_a_bad_request(text: bytes) -> None:
    with pytest.raises(BadRequest):
        plain_protobuf(ConfigMap, text)


def test_fields_are_read_as_they_stand() -> None:
    assert list(wire_fields(field(1, 300) + field(2, "x"))) == [(1, 300), (2, b"x")]


def test_every_field_of_what_is_served_has_a_number_but_the_newest() -> None:
    from knarr.apiserver.protobuf_numbers import NUMBERS

    lines = dict(line.split(": ", 1) for line in NUMBERS.strip().splitlines())
    for resource in built_in():
        if "create" not in resource.verbs:
            continue  # nobody sends one
        module = resource.type.__module__.removeprefix("knarr.api.")
        known = {each.partition("=")[0] for each in lines[f"{module}.{resource.kind}"].split(" ")}
        assert known >= {info.encode_name for info in msgspec.structs.fields(resource.type)} - {"apiVersion", "kind"}


async def test_an_object_in_protobuf_is_stored_as_if_it_had_been_json(door: Door) -> None:
    data = field(2, field(1, "x") + field(2, "1"))
    status, made = await door("POST", CONFIG_MAPS, body("v1", "ConfigMap", named("a"), data), content_type=MEDIA_TYPE)
    assert (status, made["data"], made["metadata"]["namespace"]) == (201, {"x": "1"}, "default")
    as_json = await door.done("POST", CONFIG_MAPS, config_map("b", x="1"))
    assert made.keys() == as_json.keys()
    status, _ = await door("POST", CONFIG_MAPS, body("v1", "Secret", named("c")), content_type=MEDIA_TYPE)
    assert status == 400
    answered = await door.done("DELETE", f"{CONFIG_MAPS}/a", body("v1", "DeleteOptions"), content_type=MEDIA_TYPE)
    assert answered["status"] == "Success"


def test_the_table_is_small() -> None:
    path = Path(plain_protobuf.__code__.co_filename).with_name("protobuf_numbers.py")
    assert path.stat().st_size < 64 << 10
