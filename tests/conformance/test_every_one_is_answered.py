"""Upstream's conformance tests of eight SIGs: each is answered by one test here, or is aside for a reason.

The names come from a file of facts beside the repository; where it is not, there is nothing to compare with
(UPSTREAM_FACTS names another folder).
"""

from __future__ import annotations

import ast
import os
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

FOLDER = Path(__file__).parent
BESIDE = FOLDER.parents[2] / "shared" / "upstream-1.36"
FACTS = Path(os.environ.get("UPSTREAM_FACTS", BESIDE))
SIGS = (
    "sig-api-machinery",
    "sig-apps",
    "sig-architecture",
    "sig-auth",
    "sig-cli",
    "sig-instrumentation",
    "sig-network",
    "sig-scheduling",
)
PARTLY = ("sig-storage",)
"""Some of these are answered here too, the others by tests elsewhere that don't name them."""
ASIDE = {
    r"\[sig-api-machinery\] (AdmissionWebhook|CustomResourceConversionWebhook) ": "webhooks are an extension point",
    r"\[sig-api-machinery\] (Validating|Mutating)AdmissionPolicy ": "policies in CEL are an extension point",
    r"\[sig-api-machinery\] CustomResource(Definition|FieldSelectors|PublishOpenAPI)": "custom resources come later",
    r"\[sig-api-machinery\] AggregatedDiscovery .* for CRDs$": "custom resources come later",
    r"\[sig-api-machinery\] FieldValidation .* (CR|CRD)\b": "custom resources come later",
}
"""Patterns of names → why none of our tests answers for them."""


def answered() -> Iterator[str]:
    """The first words of every test's docstring, where they are such a name."""
    for path in sorted(FOLDER.glob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.name.startswith("test_"):
                text = (ast.get_docstring(node) or "").split("\n\n")[0]
                if text.startswith("[sig-"):
                    yield " ".join(text.split())


def upstream(sigs: tuple[str, ...] = SIGS) -> set[str]:
    facts = FACTS / "conformance.yaml"
    if not facts.exists():
        pytest.skip("needs upstream's facts (shared/upstream-1.36)")
    names = (test["codename"].removesuffix(" [Conformance]") for test in yaml.safe_load(facts.read_text()))
    return {" ".join(name.split()) for name in names if name.startswith(tuple(f"[{sig}] " for sig in sigs))}


def aside(name: str) -> list[str]:
    return [pattern for pattern in ASIDE if re.match(pattern, name)]


def test_every_conformance_test_is_answered_once_or_aside() -> None:
    names, times = upstream(), Counter(answered())
    assert len(names) > 100
    assert sorted(times.keys() - names - upstream(PARTLY)) == [], "answers to tests that upstream does not have"
    assert [name for name, count in times.items() if count > 1] == []
    assert sorted(name for name in names if not aside(name) and name not in times) == []


def test_nothing_that_is_aside_is_answered_and_every_reason_is_needed() -> None:
    names = upstream()
    used = {pattern for name in names for pattern in aside(name)}
    assert used == set(ASIDE)
    assert [name for name in answered() if aside(name)] == []
