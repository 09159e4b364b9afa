"""What holds for the whole suite: hypothesis tries the same examples each time; who uses the machine is alone on it."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

UNHURRIED = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
"""How long examples take says nothing on a machine that has other work."""
settings.register_profile("deterministic", derandomize=True, **UNHURRIED)
settings.register_profile("long", derandomize=False, max_examples=2000, **UNHURRIED)
"""For a search of its own: pytest --hypothesis-profile=long tests/apiserver/hostile (make fuzz)."""
settings.load_profile("deterministic")

HERE = Path(__file__).parent
ON_THE_MACHINE = ("cli/", "e2e/", "edge/ingress/", "edge/test_announcer", "edge/test_port_watch", "network/")
"""Tests with kernel rules, network namespaces, programs beside them, or times that they measure."""
CLUSTERS = ("cluster", "hollow")
"""Fixtures that are a `knarr up`."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        place = item.path.relative_to(HERE).as_posix()
        fixtures = getattr(item, "fixturenames", ())
        if place.startswith(ON_THE_MACHINE) or "e2e" in item.keywords or any(name in fixtures for name in CLUSTERS):
            item.add_marker(pytest.mark.machine)
