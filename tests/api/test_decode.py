"""From bodies to objects: what is refused, how it is told, and that nothing hurts."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knarr.api.apps.v1 import Deployment
from knarr.api.core.v1 import ConfigMap, Pod
from knarr.api.decode import NESTING_MAX, decode
from knarr.api.errors import BadRequest
from knarr.api.yaml_text import parse_yaml

NESTED = NESTING_MAX * 400
IN_DEPLOYMENT = 'Deployment in version "v1" cannot be handled as a Deployment: '


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (
            b'{"spec":{"replicas":"3"}}',
            "json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32",
        ),
        (
            b'{"spec":{"replicas":2147483648}}',
            "json: cannot unmarshal number 2147483648 into Go struct field DeploymentSpec.spec.replicas of type int32",
        ),
        (
            b'{"spec":{"template":{"spec":{"containers":[{"ports":[{"containerPort":"80"}]}]}}}}',
            "json: cannot unmarshal string into Go struct field "
            "ContainerPort.spec.template.spec.containers.ports.containerPort of type int32",
        ),
        (
            b'{"spec":{"template":{"spec":{"containers":{}}}}}',
            "json: cannot unmarshal object into Go struct field PodSpec.spec.template.spec.containers of type "
            "[]v1.Container",
        ),
        (
            b'{"metadata":{"labels":{"a":"x","b":1}}}',
            "json: cannot unmarshal number into Go struct field ObjectMeta.metadata.labels of type string",
        ),
        (
            b'{"metadata":{"generation":99999999999999999999}}',
            "json: cannot unmarshal number 99999999999999999999 into Go struct field "
            "ObjectMeta.metadata.generation of type int64",
        ),
        (
            b'{"metadata":{"creationTimestamp":""}}',
            'parsing time "" as "2006-01-02T15:04:05Z07:00": cannot parse "" as "2006"',
        ),
        (b"[]", "json: cannot unmarshal array into Go value of type v1.Deployment"),
    ],
)
def test_wrong_type_is_told_as_upstream_does(body: bytes, message: str) -> None:
    with pytest.raises(BadRequest) as caught:
        decode(Deployment, body)
    assert caught.value.message == IN_DEPLOYMENT + message


HOSTILE_JSON = [
    b"",
    b"{",
    b"[" * 1_500_000,
    b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    b'{"metadata":{"managedFields":[{"fieldsV1":' + b'{"a":' * 400 + b"1" + b"}" * 400 + b"}]}}",
    b'{"metadata":{"name":"\xff"}}',
    b'{"metadata":{"name":"\\ud800"}}',
    b'{"spec":{"priority":NaN}}',
    b'{"spec":{"priority":1e400}}',
    b'{"spec":{"priority":' + b"9" * 5000 + b"}}",
    b'{"spec":{"overhead":{"cpu":' + b"9" * 5000 + b"}}}",
    b'{"metadata":{"name":"a"}} x',
    b'{"metadata":{"creationTimestamp":"2020-01-01T00:00:00"}}',
]


@pytest.mark.parametrize("validation", ["Strict", "Warn", "Ignore"])
@pytest.mark.parametrize("body", HOSTILE_JSON, ids=lambda body: repr(body[:40]))
def test_hostile_json_is_a_bad_request(body: bytes, validation: str) -> None:
    with pytest.raises(BadRequest):
        decode(Pod, body, validation=validation)


ALIASES = b"".join(
    b"%c: &%c [%s]\n" % (97 + level, 97 + level, b",".join([b"x" if level == 0 else b"*%c" % (96 + level)] * 10))
    for level in range(10)
)


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 1_500_000,
        b"- " * 50_000,
        ALIASES,
        b"a: &a [*a]",
        b"a: *unknown",
        b"? [a]\n: b",
        b"\xff",
        b'metadata: {name: "\\ud800"}',
        b"{}\n---\n{}",
        b"spec: {priority: " + b"9" * 6000 + b"}",
        b"spec: {priority: 1.0e+400}",
        b"spec: {priority: .nan}",
        b"",
        b"a: {",
    ],
    ids=lambda body: repr(body[:40]),
)
def test_hostile_yaml_is_a_bad_request(body: bytes) -> None:
    with pytest.raises(BadRequest):
        decode(Pod, body, yaml_body=True)


@given(st.binary(max_size=200))
def test_any_bytes_are_an_object_or_a_bad_request(body: bytes) -> None:
    for yaml_body in (False, True):
        try:
            decode(ConfigMap, body, yaml_body=yaml_body, validation="Strict")
        except BadRequest:
            continue


@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers(-(2**63), 2**63 - 1)
        | st.text(st.characters(codec="ascii"), max_size=9),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("abc<=-: ", max_size=5), inner, max_size=4),
        max_leaves=20,
    )
)
def test_json_read_as_yaml_is_the_same_data(data: object) -> None:
    found, faults = parse_yaml(json.dumps(data).encode())
    assert (found, faults) == (data, [])


def test_unknown_and_duplicate_fields_are_named_with_their_paths() -> None:
    body = (
        b'{"spec":{"foo":1,"template":{"spec":{"containers":[{"name":"x","bar":1,"name":"y"}]}}},'
        b'"metadata":{"labels":{"a":"b","a":"c"}}}'
    )
    deployment, warnings = decode(Deployment, body)
    assert warnings == [
        'unknown field "spec.foo"',
        'unknown field "spec.template.spec.containers[0].bar"',
        'duplicate field "spec.template.spec.containers[0].name"',
        'duplicate field "metadata.labels.a"',
    ]
    assert deployment.metadata.labels == {"a": "c"}
    assert decode(Deployment, body, validation="Ignore")[1] == []
    with pytest.raises(BadRequest, match=r'strict decoding error: unknown field "spec\.foo", unknown field'):
        decode(Deployment, body, validation="Strict")


def test_duplicates_are_found_though_all_types_are_right() -> None:
    assert decode(Deployment, b'{"spec":{"replicas":3,"replicas":4}}')[1] == ['duplicate field "spec.replicas"']
    assert decode(ConfigMap, b'{"data":{"a\\\\":"1","a\\\\":"2"}}')[1] == ['duplicate field "data.a\\"']
    assert decode(ConfigMap, b'{"data":{"a":"1","\\u0061":"2"}}')[1] == ['duplicate field "data.a"']


@given(st.dictionaries(st.text(max_size=5), st.text('"\\:a ', max_size=8), max_size=5))
def test_strings_that_look_like_keys_are_no_duplicates(data: dict[str, str]) -> None:
    body = json.dumps({"data": data}).encode()
    if "\\ud" not in body.decode():
        assert decode(ConfigMap, body, validation="Strict")[0].data == data


def test_null_is_absent() -> None:
    deployment, warnings = decode(
        Deployment,
        b'{"metadata":{"creationTimestamp":null,"labels":null},"spec":{"replicas":null}}',
        validation="Strict",
    )
    assert deployment.spec.replicas is None
    assert not warnings


def test_yaml_is_read_as_upstream_reads_it() -> None:
    body = b"""
apiVersion: v1
kind: Pod
metadata: {name: web, labels: {on: "yes", octal: "0644"}, annotations: {when: 2020-01-01}}
spec:
  priority: 0x10
  volumes:
  - {name: a, secret: {secretName: b, defaultMode: 0644}}
  containers: []
"""
    pod, warnings = decode(Pod, body, yaml_body=True, validation="Ignore")
    assert pod.spec.priority == 16
    assert pod.spec.volumes[0].secret.default_mode == 420
    assert pod.metadata.annotations == {"when": "2020-01-01"}
    assert not warnings


def test_key_that_stands_twice_in_yaml_is_named() -> None:
    body = b"metadata:\n  name: x\n  name: y\n"
    pod, warnings = decode(Pod, body, yaml_body=True)
    assert (pod.metadata.name, warnings) == ("y", ['line 3: key "name" already set in map'])
    with pytest.raises(BadRequest, match="already set in map"):
        decode(Pod, body, yaml_body=True, validation="Strict")


@pytest.mark.parametrize(
    "body",
    [
        b'{"metadata":{"name":"x"},"data":{"a":"1","a":"2"}}',
        b'{"metadata":{"name":"x"},"data":{"a" :"1","a":"2"}}',
        b'{"metadata":{"name":"x"},"data":{"a":"1","a":"\\u0022:"}}',
        b'{"metadata":{"name":"x"},"data":{"a":"\\":","a":"2","b":"\\":"}}',
        b'{"metadata":{"name":"x"},"data":{"a\\\\":"1","a\\\\":"2"}}',
    ],
)
def test_a_duplicate_is_found_whatever_stands_around_it(body: bytes) -> None:
    _, warnings = decode(ConfigMap, body)
    assert len(warnings) == 1
    assert "duplicate field" in warnings[0]


@pytest.mark.parametrize("text", [b'\\":', b"\\u0022:", b"a: b", b"\\\\", b'x\\\\\\":y'])
def test_what_only_looks_like_a_key_is_none(text: bytes) -> None:
    _, warnings = decode(ConfigMap, b'{"metadata":{"name":"x"},"data":{"a":"%b","b":"%b"}}' % (text, text))
    assert warnings == []
