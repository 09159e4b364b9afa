"""Several calls at once, all of them finished (or cancelled) when the caller goes on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, TypeVar

from knarr.api.errors import APIError

T = TypeVar("T")

SLOW_START = 1
"""Size of the first batch; each that goes well doubles the next."""


async def together(calls: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Their answers, in order; the first error ends them all. The caller bounds how many."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(call) for call in calls]
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None
    return [task.result() for task in tasks]


async def slow_start(count: int, create: Callable[[], Coroutine[Any, Any, APIError | None]]) -> APIError | None:
    """Call `create` `count` times, in batches that double while all goes well; the first error ends it."""
    left, batch = count, SLOW_START
    while left:
        size = min(left, batch)
        errors = await together(create() for _ in range(size))
        error = next(filter(None, errors), None)
        if error:
            return error
        left -= size
        batch *= 2
    return None
