"""A store that lives and dies with its process: for tests, simulations and `knarr plan`. Not durable, else exact."""

from __future__ import annotations

from knarr.store.contract import Write
from knarr.store.local import LocalStore


class MemoryStore(LocalStore):
    """See contract.Store."""

    async def commit(self, *writes: Write) -> int:
        self.history.check(writes)
        revision = self.history.revision + 1
        self.history.apply(revision, writes)
        return revision

    async def compact(self, revision: int) -> None:
        self.history.compact(revision)

    async def close(self) -> None:
        self.history.close()
