"""One API server a test."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.apiserver.pipeline.door import Door, open_door


@pytest.fixture
async def door() -> AsyncIterator[Door]:
    # externalIPs are allowed here, so that their form is what is looked at.
    async with open_door(without_plugins=["DenyServiceExternalIPs"]) as opened:
        yield opened
