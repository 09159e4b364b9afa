"""Specifications of Jobs for tests."""

from __future__ import annotations

from typing import Any

from tests.api.made import container

UID = "2ba13f4a-0000-4000-8000-000000000001"


def template(**spec: Any) -> dict[str, Any]:
    return {"spec": {"containers": [container()], "restartPolicy": "Never", **spec}}


def job(**spec: Any) -> dict[str, Any]:
    return {"template": template(), **spec}


def indexed(completions: int = 5, **spec: Any) -> dict[str, Any]:
    return job(completionMode="Indexed", completions=completions, **spec)
