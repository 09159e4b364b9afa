"""What the door must know of the store at each request, held in memory: followed by watches, and never behind.

A follower is asked before it is used: `fresh()` takes in whatever the store has committed since (nothing waits, no task
runs), so an answer is never older than the store itself. When it is not fresh, because nothing was read yet or because
more has changed than a watch keeps, `await catch_up()` reads everything anew.

    follower = Follower(store, {"roles.rbac.authorization.k8s.io/": self._role})
    if not follower.fresh():
        await follower.catch_up()
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from knarr.store.contract import Compacted, FutureRevision, Kind, Overrun, Store, Watch

Change = Callable[[str, bytes | None], None]
"""change(key, value): told of each object as it is now; None when it is gone."""


class Follower:
    """Tells `changes` (by the prefix of their keys) all that the store holds, and then each change of it."""

    def __init__(self, store: Store, changes: Mapping[str, Change], forget: Callable[[], None]) -> None:
        self._store = store
        self._changes = dict(changes)
        self._forget = forget
        """Called before everything is read (anew)."""
        self._watches: list[tuple[Watch, Change]] = []
        self._seen = -1
        self._reading = asyncio.Lock()

    def fresh(self) -> bool:
        """Take in what has changed; False when `catch_up` is needed."""
        revision = self._store.revision
        if revision == self._seen:
            return True
        if not self._watches:
            return False
        try:
            for watch, change in self._watches:
                for event in watch.take():
                    change(event.key, None if event.kind is Kind.DELETED else event.value)
        except Overrun:
            self._seen = -1
            return False
        self._seen = revision
        return True

    async def catch_up(self) -> None:
        """Read everything, and follow it from there."""
        async with self._reading:
            while not self.fresh():
                await self.close()
                self._forget()
                try:
                    for prefix, change in self._changes.items():
                        found = await self._store.range(prefix)
                        self._watches.append((self._store.watch(prefix, after=found.revision), change))
                        for record in found.records:
                            change(record.key, record.value)
                except (Compacted, FutureRevision):
                    continue  # so much was written in between that history has moved on

    async def close(self) -> None:
        """Follow no more."""
        watches, self._watches, self._seen = self._watches, [], -1
        for watch, _ in watches:
            await watch.__aexit__(None, None, None)
