"""sig-api-machinery: long lists in pieces, of one moment; and how to go on when that moment is forgotten."""

from __future__ import annotations

import random
from typing import Any

import msgspec

from knarr.api.core.v1 import PodTemplate
from knarr.client.transport import Request
from tests.apiserver.pipeline.door import Door, config_map
from tests.cluster import ADMINISTRATOR, Cluster, simulate

TOTAL = 400
TEMPLATES = "/api/v1/namespaces/default/podtemplates"


def name(number: int) -> str:
    return f"template-{number:04}"


def template(number: int) -> dict[str, Any]:
    spec = {"containers": [{"name": "test", "image": "test2"}]}
    return {"apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": name(number)}, "template": {"spec": spec}}


async def fill(door: Door) -> None:
    for number in random.Random(1).sample(range(TOTAL), TOTAL):
        await door.done("POST", TEMPLATES, template(number))


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


def test_a_list_whose_moment_is_forgotten_goes_on_inconsistently() -> None:
    """[sig-api-machinery] Servers with support for API chunking should support continue listing from the last key if
    the original version has been compacted away, though the list is inconsistent [Slow]

    In virtual time: the second page is asked for again and again, until its moment is forgotten.
    """
    limit = TOTAL // 10

    async def scenario(cluster: Cluster) -> None:
        async def page(token: str = "") -> tuple[int, dict[str, Any]]:
            query = {"limit": str(limit)} | ({"continue": token} if token else {})
            request = Request("GET", TEMPLATES, query, {"accept": "application/json"}, b"", ADMINISTRATOR)
            answer = await cluster.server.handle(request)
            return answer.status, msgspec.json.decode(answer.body)

        for number in range(TOTAL):
            await cluster.client.create(msgspec.convert(template(number), PodTemplate), namespace="default")
        _, first = await page()
        found, began_s = check(first, limit, 0), cluster.clock.monotonic_s()
        while (answered := await page(first["metadata"]["continue"]))[0] == 200:
            assert answered[1]["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"]
            await cluster.clock.sleep(20)
            assert cluster.clock.monotonic_s() - began_s < 600, "upstream waits no longer"
        assert cluster.clock.monotonic_s() - began_s >= 300
        status, expired = answered
        assert (status, expired["reason"]) == (410, "Expired")
        token, revisions = expired["metadata"]["continue"], set()
        while token:
            _, more = await page(token)
            found = check(more, limit, found)
            revisions.add(more["metadata"]["resourceVersion"])
            token = more["metadata"].get("continue")
        assert found == TOTAL
        assert len(revisions) == 1
        assert first["metadata"]["resourceVersion"] not in revisions

    simulate(scenario, nodes=1)
