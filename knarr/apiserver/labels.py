"""Which objects have a label: what makes a list by label among many objects cheap.

`kubectl get pods -l app=web` asks for a few of many. Without an index each object's labels are decoded for each such
list. So a kind that has many objects gets an index the first time it is listed by label; from then on the index follows
the store, and is never behind it. It knows keys of objects by label, nothing else: some 150 bytes a label of an object.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from knarr.api.selectors import Operator, Requirement
from knarr.apiserver.follow import Follower
from knarr.apiserver.selection import Selection
from knarr.store.contract import Record, Store

INDEXED_FROM = 500
"""Objects that are looked through faster than an index is kept."""
INDEXES_MAX = 16
"""Kinds that are indexed at once; the one that was made first goes first."""

INDEXED = (Operator.IN, Operator.EXISTS)


class Labels:
    """The indexes of a store."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._indexes: dict[str, LabelIndex] = {}

    async def select(self, selection: Selection, records: Sequence[Record], revision: int) -> Sequence[Record]:
        """Of the records of a selection's prefix at a revision, those that are selected."""
        wanted = selection.labels.requirements
        known = [requirement for requirement in wanted if requirement.operator in INDEXED]
        if known and len(records) >= INDEXED_FROM:
            index = await self._index(selection.kept.qualified)
            if index.revision == revision:
                keys = index.keys(known)
                records = [record for record in records if record.key in keys]
                if selection.only_labels and len(known) == len(wanted):
                    return records
        return [record for record in records if selection.holds(record.value)]

    async def close(self) -> None:
        while self._indexes:
            await self._indexes.popitem()[1].close()

    async def _index(self, qualified: str) -> LabelIndex:
        """Up to date, made when it isn't there."""
        index = self._indexes.get(qualified)
        if index is None:
            if len(self._indexes) >= INDEXES_MAX:
                await self._indexes.pop(next(iter(self._indexes))).close()
            index = self._indexes.setdefault(qualified, LabelIndex(self._store, qualified))
        await index.follow()
        return index


class LabelIndex:
    """Keys of the objects of one kind, by label and by label and value."""

    def __init__(self, store: Store, qualified: str) -> None:
        self._store = store
        self._labels: dict[str, dict[str, str]] = {}
        self._having: dict[tuple[str, str | None], set[str]] = {}
        self._follower = Follower(store, {f"{qualified}/": self._change}, self._forget)
        self.revision = 0

    async def follow(self) -> None:
        if not self._follower.fresh():
            await self._follower.catch_up()
        self.revision = self._store.revision

    def keys(self, requirements: Iterable[Requirement]) -> set[str]:
        """Of objects for which all of them hold."""
        found = [self._of(requirement) for requirement in requirements]
        return set.intersection(*sorted(found, key=len))

    async def close(self) -> None:
        await self._follower.close()

    def _of(self, requirement: Requirement) -> set[str]:
        if requirement.operator is Operator.EXISTS:
            return self._having.get((requirement.key, None), set())
        values = (self._having.get((requirement.key, value), set()) for value in requirement.values)
        return set[str]().union(*values)

    def _change(self, key: str, value: bytes | None) -> None:
        labels = _decode(value).metadata.labels if value is not None else {}
        before = self._labels.pop(key, {})
        if labels:
            self._labels[key] = labels
        if labels == before:
            return
        for pair in _pairs(before):
            held = self._having[pair]
            held.discard(key)
            if not held:
                del self._having[pair]
        for pair in _pairs(labels):
            self._having.setdefault(pair, set()).add(key)

    def _forget(self) -> None:
        self._labels.clear()
        self._having.clear()


def _pairs(labels: dict[str, str]) -> Iterable[tuple[str, str | None]]:
    for name, value in labels.items():
        yield name, value
        yield name, None


class _Metadata(msgspec.Struct):
    labels: dict[str, str] = {}


class _Labelled(msgspec.Struct):
    metadata: _Metadata


_decode = msgspec.json.Decoder(_Labelled).decode
