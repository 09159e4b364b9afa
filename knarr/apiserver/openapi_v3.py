"""Version 3 of OpenAPI, made of version 2: the same operations, in another form."""

from __future__ import annotations

from typing import Any

SHAPE = ("type", "uniqueItems")
"""Keys of a parameter that version 3 puts into a schema."""
LEFT_OUT = ("consumes", "parameters", "produces", "responses", "schemes")


def paths(told: dict[str, Any]) -> dict[str, Any]:
    """Paths of version 2, as version 3 tells them."""
    return {path: _item(item) for path, item in told.items()}


def _item(item: dict[str, Any]) -> dict[str, Any]:
    return {
        key: [_parameter(each) for each in value] if key == "parameters" else _operation(value)
        for key, value in item.items()
    }


def _parameter(parameter: dict[str, Any]) -> dict[str, Any]:
    rest = {key: value for key, value in parameter.items() if key not in SHAPE}
    return rest | {"schema": {key: parameter[key] for key in SHAPE if key in parameter}}


def _operation(operation: dict[str, Any]) -> dict[str, Any]:
    made = {key: value for key, value in operation.items() if key not in LEFT_OUT}
    listed = operation.get("parameters", ())
    if others := [_parameter(each) for each in listed if each["in"] != "body"]:
        made["parameters"] = others
    for body in listed:
        if body["in"] == "body":
            required = {"required": True} if body.get("required") else {}
            made["requestBody"] = {"content": _content(operation["consumes"], body["schema"])} | required
    made["responses"] = {code: _response(operation, answer) for code, answer in operation["responses"].items()}
    return made


def _response(operation: dict[str, Any], answer: dict[str, Any]) -> dict[str, Any]:
    said = {"description": answer["description"]}
    if "schema" not in answer:
        return said
    return {"content": _content(operation["produces"], answer["schema"])} | said


def _content(media_types: list[str], schema: dict[str, Any]) -> dict[str, Any]:
    return {media: {"schema": schema} for media in media_types}
