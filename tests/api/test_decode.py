"""Bodies of all sorts: right, careless and hostile."""

from __future__ import annotations

import pytest

from knarr.api.apps.v1 import ControllerRevision, Deployment
from knarr.api.core.v1 import ConfigMap, Pod
from knarr.api.decode import convert, decode
from knarr.api.errors import BadRequest

DEPTH = 100_000


def revision(data: bytes) -> bytes:
    return b'{"apiVersion":"apps/v1","kind":"ControllerRevision","metadata":{"name":"a"},"revision":1,"data":%s}' % data


@pytest.mark.parametrize(
    ("body", "yaml_body"),
    [
        (b"[" * 1_500_000, False),
        (b"[" * 1_500_000, True),
        (b"{a: " * DEPTH, True),
        (b"- " * DEPTH, True),
        (b'{"data":{"k":"\xff"}}', False),
        (b'{"data":{"k":"\xff"}}', True),
        (b'{"data":{"k":"\\ud800"}}', False),
        (b'{"data":{"k":"\\ud800"}}', True),
        (b'{"data":{"k":NaN}}', False),
        (b'{"data":{"k":1e400}}', False),
        (b'{"data":{"k":%s}}' % (b"9" * 5000), False),
        (b"data: {k: %s}" % (b"9" * 5000), True),
        (b'{"a":' * DEPTH + b"1" + b"}" * DEPTH, False),
        (b"", False),
        (b"null", False),
        (b"[]", False),
        (b'{"data":', False),
        (b"? [a]\n: 1", True),
        (b"a: &a [*a]", True),
        (b"a: *b", True),
    ],
)
def test_a_body_that_is_no_object_is_a_bad_request(body: bytes, yaml_body: bool) -> None:
    with pytest.raises(BadRequest):
        decode(ConfigMap, body, yaml_body=yaml_body)


@pytest.mark.parametrize("data", [b"NaN", b"1e400", b"9" * 5000, b'{"a":' * DEPTH + b"1" + b"}" * DEPTH])
def test_hostile_values_inside_of_free_data_are_bad_requests_too(data: bytes) -> None:
    with pytest.raises(BadRequest):
        decode(ControllerRevision, revision(data))


@pytest.mark.parametrize("replicas", [b'"3"', b"2147483648", b"-2147483649", b"1.5", b"true", b"[]"])
def test_a_number_of_the_wrong_type_or_size_is_a_bad_request(replicas: bytes) -> None:
    with pytest.raises(BadRequest, match=r"spec\.replicas"):
        decode(Deployment, b'{"spec":{"replicas":%s}}' % replicas)


TWICE = b"""{"spec":{"replicas":1,"replicas":2,"foo":1,"template":{"spec":{"containers":[{"name":"a","name":"b"}]}}}}"""
FAULTS = [
    'duplicate field "spec.replicas"',
    'duplicate field "spec.template.spec.containers[0].name"',
    'unknown field "spec.foo"',
]


def test_unknown_and_duplicate_fields_are_warnings_by_default() -> None:
    obj, warnings = decode(Deployment, TWICE)
    assert warnings == FAULTS
    assert obj.spec is not None
    assert obj.spec.replicas == 2


def test_unknown_and_duplicate_fields_are_errors_when_strict() -> None:
    with pytest.raises(BadRequest) as caught:
        decode(Deployment, TWICE, validation="Strict")
    assert str(caught.value).endswith("strict decoding error: " + ", ".join(FAULTS))


def test_unknown_and_duplicate_fields_pass_when_ignored() -> None:
    _, warnings = decode(Deployment, TWICE, validation="Ignore")
    assert warnings == []


def test_a_quote_and_colon_in_a_text_is_no_key() -> None:
    _, warnings = decode(ConfigMap, rb'{"data":{"a":"\":\":","b":"x\" : "}}', validation="Strict")
    assert warnings == []


def test_null_counts_as_absent_but_is_the_empty_word_in_a_map() -> None:
    obj, warnings = decode(Deployment, b'{"spec":{"replicas":null,"selector":{"matchLabels":{"a":null}}}}')
    assert obj.spec is not None
    assert obj.spec.replicas is None
    assert obj.spec.selector.match_labels == {"a": ""}
    assert warnings == []


def test_convert_tells_the_path_of_a_wrong_type() -> None:
    with pytest.raises(BadRequest, match=r"Pod\.spec\.containers"):
        convert(Pod, {"spec": {"containers": "none"}})


YAML = b"""
apiVersion: v1
kind: ConfigMap
metadata: &meta
  name: "web"
  labels: {<<: &shared {tier: front}, app: web}
  creationTimestamp: 2026-01-02T03:04:05Z
data:
  <<: *shared
  yes: "on"
  text: |
    two
    lines
"""


def test_yaml_is_read_as_upstream_reads_it() -> None:
    obj, warnings = decode(ConfigMap, YAML, yaml_body=True)
    assert warnings == []
    assert obj.metadata.name == "web"
    assert obj.metadata.labels == {"tier": "front", "app": "web"}
    assert obj.metadata.creation_timestamp is not None
    assert obj.metadata.creation_timestamp.year == 2026
    assert obj.data == {"tier": "front", "yes": "on", "text": "two\nlines\n"}


def test_yaml_numbers_are_json_numbers() -> None:
    text = (
        b"revision: 1\ndata: {octal: 0644, hex: 0x1F, plain: 12_000, half: 0.5, time: 1:30, big: 123456789012345678901}"
    )
    obj, _ = decode(ControllerRevision, text, yaml_body=True)
    assert obj.data == {
        "octal": 0o644,
        "hex": 31,
        "plain": 12000,
        "half": 0.5,
        "time": "1:30",
        "big": 123456789012345678901.0,
    }


def test_a_key_twice_in_yaml_is_a_bad_request() -> None:
    with pytest.raises(BadRequest, match="already set in map"):
        decode(ConfigMap, b"data: {a: x, a: y}", yaml_body=True)


def test_yaml_aliases_that_expand_without_bounds_are_refused() -> None:
    lines = [b"a0: &a0 [x,x,x,x,x,x,x,x,x,x]"]
    lines += [b"a%d: &a%d [%s]" % (index, index, b",".join([b"*a%d" % (index - 1)] * 10)) for index in range(1, 20)]
    with pytest.raises(BadRequest, match="too large"):
        decode(ConfigMap, b"\n".join(lines), yaml_body=True)
