"""What the engines that keep their state in this process have in common: reads and watches come from memory."""

from __future__ import annotations

from knarr.store.contract import Part, Range, Record, Watch
from knarr.store.history import History


class LocalStore:
    """The reading half of a store (see contract.Store)."""

    def __init__(self) -> None:
        self.history = History()

    @property
    def revision(self) -> int:
        return self.history.revision

    def fault(self) -> str | None:
        return "the store is closed" if self.history.closed else None

    def size_bytes(self) -> int:
        return 0

    async def get(self, key: str) -> Record | None:
        return self.history.get(key)

    async def range(self, prefix: str, *, revision: int = 0, after: str = "", limit: int = 0) -> Range:
        return self.history.range(prefix, revision=revision, after=after, limit=limit)

    def watch(self, prefix: str, *, after: int, part: Part | None = None) -> Watch:
        return self.history.watch(prefix, after, part)

    async def wait_for(self, revision: int, timeout_s: float) -> bool:
        return await self.history.wait_for(revision, timeout_s)
