"""sig-api-machinery: long lists in pieces, of one moment; and how to go on when that moment is forgotten."""

from __future__ import annotations

import random
from typing import Any

from tests.apiserver.pipeline.door import Door, config_map

TOTAL = 400
TEMPLATES = "/api/v1/namespaces/default/podtemplates"


def name(number: int) -> str:
    return f"template-{number:04}"


async def fill(door: Door) -> None:
    for number in random.Random(1).sample(range(TOTAL), TOTAL):
        spec = {"containers": [{"name": "test", "image": "test2"}]}
        body = {
            "apiVersion": "v1",
            "kind": "PodTemplate",
            "metadata": {"name": name(number)},
            "template": {"spec": spec},
        }
        await door.done("POST", TEMPLATES, body)


def check(page: dict[str, Any], limit: int, found: int) -> int:
    """A page that begins after `found` items; answers how many there are with it."""
    items, metadata = page["items"], page["metadata"]
    assert len(items) <= limit
    assert [item["metadata"]["name"] for item in items] == [name(found + place) for place in range(len(items))]
    left = TOTAL - found - len(items)
    assert metadata.get("remainingItemCount") == (left or None)
    assert bool(metadata.get("continue")) == bool(left)
    return found + len(items)


async def test_pages_of_any_size_are_one_list_of_one_moment(door: Door) -> None:
    """[sig-api-machinery] Servers with support for API chunking should return chunks of results for list calls"""
    await fill(door)
    sizes = random.Random(2)
    for _ in range(3):
        found, revisions, more = 0, set(), {}
        while True:
            limit = sizes.randint(1, TOTAL // 10)
            page = await door.done("GET", TEMPLATES, limit=str(limit), **more)
            found = check(page, limit, found)
            revisions.add(page["metadata"]["resourceVersion"])
            if not page["metadata"].get("continue"):
                break
            more = {"continue": page["metadata"]["continue"]}
            await door.done(
                "POST", "/api/v1/namespaces/default/configmaps", config_map(f"x{found}-{len(revisions)}-{_}")
            )
        assert (found, len(revisions)) == (TOTAL, 1)
    whole = await door.done("GET", TEMPLATES, limit=str(TOTAL + 1))
    assert check(whole, TOTAL + 1, 0) == TOTAL


async def test_a_list_whose_moment_is_forgotten_goes_on_inconsistently(door: Door) -> None:
    """[sig-api-machinery] Servers with support for API chunking should support continue listing from the last key if
    the original version has been compacted away, though the list is inconsistent [Slow]"""
    await fill(door)
    limit = TOTAL // 10
    first = await door.done("GET", TEMPLATES, limit=str(limit))
    found = check(first, limit, 0)
    await door.done("POST", "/api/v1/namespaces/default/configmaps", config_map("later"))
    await door.store.compact(door.store.revision)
    status, expired = await door("GET", TEMPLATES, limit=str(limit), **{"continue": first["metadata"]["continue"]})
    assert (status, expired["reason"]) == (410, "Expired")
    token, revisions = expired["metadata"]["continue"], set()
    while token:
        page = await door.done("GET", TEMPLATES, limit=str(limit), **{"continue": token})
        found = check(page, limit, found)
        revisions.add(page["metadata"]["resourceVersion"])
        token = page["metadata"].get("continue")
    assert found == TOTAL
    assert len(revisions) == 1
    assert first["metadata"]["resourceVersion"] not in revisions
