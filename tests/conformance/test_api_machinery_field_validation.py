"""sig-api-machinery: a typed object's unknown and repeated fields are named when its writer asks for strictness."""

from __future__ import annotations

import msgspec

from tests.apiserver.pipeline.door import DEPLOYMENTS, Door, deployment

STRICT = {"fieldManager": "validator", "fieldValidation": "Strict"}


async def test_unknown_and_repeated_fields_of_a_typed_object_are_both_told(door: Door) -> None:
    """[sig-api-machinery] FieldValidation should detect unknown and duplicate fields of a typed object"""
    body = msgspec.json.encode(deployment())
    body = body.replace(b'"replicas":3', b'"unknownField":"x","replicas":2,"replicas":3')
    status, refused = await door("POST", DEPLOYMENTS, body, **STRICT)
    assert (status, refused["reason"]) == (400, "BadRequest")
    expected = 'strict decoding error: unknown field "spec.unknownField", duplicate field "spec.replicas"'
    assert expected in refused["message"]
    assert (await door("GET", f"{DEPLOYMENTS}/web"))[0] == 404
    answer = await door.ask("POST", DEPLOYMENTS, body, fieldValidation="Warn")
    assert answer.status == 201
    assert list(answer.warnings) == ['unknown field "spec.unknownField"', 'duplicate field "spec.replicas"']
    assert msgspec.json.decode(answer.body)["spec"]["replicas"] == 3, "the last one counts"


async def test_unknown_metadata_of_a_typed_object_is_told(door: Door) -> None:
    """[sig-api-machinery] FieldValidation should detect unknown metadata fields of a typed object"""
    body = deployment()
    body["metadata"]["unknownMeta"] = "x"
    status, refused = await door("POST", DEPLOYMENTS, body, **STRICT)
    assert status == 400
    assert 'strict decoding error: unknown field "metadata.unknownMeta"' in refused["message"]
