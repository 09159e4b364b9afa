"""Imports point one way: api, store, apiserver; api, client, everything else. Nothing but the CLI imports the door."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "knarr"

SHARED = {"knarr", "clock", "exposition", "figures"}
"""The package itself, the one clock, what is counted and how it is shown: everybody's."""

MAY_IMPORT = {
    "api": set(),
    "store": {"api"},
    "client": {"api"},
    "apiserver": {"api", "store", "client", "pki"},
    "controllers": {"api", "client"},
    "scheduler": {"api", "client"},
    "node": {"api", "client"},
    "network": {"api", "client", "node"},
    "edge": {"api", "client", "network"},
    "simulate": {"api", "client", "controllers", "scheduler", "node"},
    "pki": set(),
    "config": set(),
    "clock": set(),
    "exposition": {"figures"},
    "figures": set(),
    "__init__": set(),
}
"""What a part of knarr may import besides itself. The CLI assembles processes, so it may import all."""


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def part_of(path: Path) -> str:
    first = path.relative_to(PACKAGE).parts[0]
    return first.removesuffix(".py")


def imported(path: Path) -> Iterator[str]:
    """The parts of knarr that a module imports, wherever in the file."""
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert not node.level, f"{path}: a relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            package, _, rest = name.partition(".")
            if package == "knarr":
                yield rest.partition(".")[0] or "knarr"


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_module_imports_only_what_its_part_may(path: Path) -> None:
    part = part_of(path)
    if part == "cli":
        return
    parts = {part_of(module) for module in modules()}
    used = {name for name in imported(path) if name in parts} - {part} - SHARED
    assert used <= MAY_IMPORT[part], f"{part} imports {sorted(used - MAY_IMPORT[part])}"


def test_time_and_chance_come_from_the_clock_only() -> None:
    """No part of the control plane calls time.time, time.monotonic, asyncio.sleep or random itself."""
    bound = ("api", "apiserver", "client", "controllers", "scheduler", "node", "network", "edge")
    forbidden = {("time", "time"), ("time", "monotonic"), ("time", "sleep"), ("asyncio", "sleep"), ("datetime", "now")}
    found = []
    for path in modules():
        if part_of(path) not in bound:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                continue
            base = node.func.value
            called = (base.id, node.func.attr) if isinstance(base, ast.Name) else ("", "")
            yields_only = called == ("asyncio", "sleep") and ast.unparse(node.args[0]) == "0"
            if (called in forbidden and not yields_only) or called[0] == "random":
                found.append(f"{path.relative_to(PACKAGE)}:{node.lineno} {ast.unparse(node.func)}")
    assert not found, found
