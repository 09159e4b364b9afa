"""What a store promises. Two engines keep it (sqlite, memory; etcd later), one test suite checks both.

A store is a map from keys to values with a history. Every commit gets a *revision*, strictly rising over the whole
store; all writes of one commit share it. History is kept back to the compacted revision: reads and watches may begin at
any revision in that window.

Values are JSON objects whose `metadata` carries no resourceVersion: the store stamps the revision in when a value goes
out (`stamp`), so that an object always says which write it came from. Keys are `<resource>/<namespace>/<name>`
(`pods/default/web`, `deployments.apps/default/web`, `nodes//n1`): plain strings, ordered by code point.

Promises:
* durable: when a commit returns, it survives kill -9 and power loss; one that did not return is wholly there or absent.
* ordered: watchers see every event of their prefix once, in the order of revisions, with no gap; events of one revision
  come together. Nobody sees a write before it is durable.
* bounded: a watcher that is too slow is ended with `Overrun`, and begins again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Protocol

from msgspec import Struct


class StoreFailure(Exception):
    """The engine could not do it (disk full, connection lost). Nothing of the commit is there."""


class Compacted(StoreFailure):
    """The revision asked for is older than what history holds."""

    def __init__(self, revision: int, oldest: int) -> None:
        super().__init__(f"revision {revision} has been compacted, the oldest is {oldest}")
        self.oldest = oldest


class FutureRevision(StoreFailure):
    """The revision asked for has not happened yet."""

    def __init__(self, revision: int, current: int) -> None:
        super().__init__(f"revision {revision} is ahead of {current}")
        self.current = current


class Overrun(StoreFailure):
    """This watcher did not keep up with its events."""


class Mismatch(StoreFailure):
    """A write's precondition does not hold: `record` is what is there (None: nothing)."""

    def __init__(self, key: str, record: Record | None) -> None:
        super().__init__(f"{key} is {f'at revision {record.revision}' if record else 'absent'}")
        self.key = key
        self.record = record


class Record(Struct, frozen=True):
    """A value as of a revision. `value` is stamped."""

    key: str
    value: bytes
    revision: int


class Write(Struct, frozen=True):
    """One change of a commit. `value` None deletes.

    `expect` is the precondition: a revision (the key is just at that), 0 (the key is absent), None (whatever).
    """

    key: str
    value: bytes | None
    expect: int | None = None


class Range(Struct, frozen=True):
    """The records of a prefix at one revision."""

    records: Sequence[Record]
    revision: int
    more: bool = False
    """The limit cut it: go on after the last record's key, at this revision."""
    remaining: int = 0
    """How many records follow."""


class Kind(StrEnum):
    ADDED = "ADDED"
    MODIFIED = "MODIFIED"
    DELETED = "DELETED"


class Event(Struct, eq=False):
    """A change of one key. Shared by all its watchers: what they derive from it is kept in `memo`, and made once."""

    kind: Kind
    key: str
    revision: int
    value: bytes
    """The new value; for DELETED the last one, stamped with the revision of the deletion."""
    previous: bytes | None
    """The value before; None for ADDED."""
    memo: dict[object, object]


class Part(Struct, frozen=True):
    """One place's part of a resource whose objects are divided among those who watch them, as pods are among nodes."""

    place_of: Callable[[bytes], str]
    """Where an object is, by its value. All parts of a division have the same function."""
    place: str


class Watch(Protocol):
    """A running watch: batches of events, in an async context manager."""

    async def __aenter__(self) -> Watch: ...
    async def __aexit__(self, *exc: object) -> None: ...

    async def next(self) -> Sequence[Event]:
        """Wait for the next events; none when it was nudged. Raises Overrun, or StoreFailure when the store closes."""

    def nudge(self) -> None:
        """Let `next` answer, now or when it is asked: by this its caller can keep time without a timer an event."""

    def take(self) -> Sequence[Event]:
        """The events that have come by now, perhaps none, without waiting; raises as `next` does."""

    @property
    def revision(self) -> int:
        """Everything of the prefix up to this revision has been handed out (for bookmarks)."""


class Store(Protocol):
    """A revisioned history. Keys and prefixes are as above; a prefix is matched as a string."""

    @property
    def revision(self) -> int:
        """The newest durable revision."""

    async def get(self, key: str) -> Record | None:
        """The newest durable value."""

    async def range(self, prefix: str, *, revision: int = 0, after: str = "", limit: int = 0) -> Range:
        """Records of a prefix in key order, at `revision` (0: the newest), from behind the key `after`.

        Raises Compacted, FutureRevision.
        """

    async def commit(self, *writes: Write) -> int:
        """All of the writes, or none: answers their revision. Raises Mismatch, StoreFailure. Keys must differ.

        A write to a key whose last write is still on its way to the disk waits for it, then looks at its precondition.
        """

    def watch(self, prefix: str, *, after: int, part: Part | None = None) -> Watch:
        """Events of a prefix with a revision above `after`, from history, then as they happen.

        Of those that begin and end outside of `part`, some may be left out: a thousand nodes must not all look at
        each pod. Raises Compacted, FutureRevision at once.
        """

    async def wait_for(self, revision: int, timeout_s: float) -> bool:
        """Wait until the store has reached a revision; False when it has not in time."""

    async def compact(self, revision: int) -> None:
        """Forget history below `revision`."""

    def fault(self) -> str | None:
        """Why it takes and gives nothing any more; None as long as it works."""

    def size_bytes(self) -> int:
        """What it takes on the disk; 0 when it is not kept on one."""

    async def close(self) -> None: ...


_METADATA = b'"metadata":{'


def stamp(value: bytes, revision: int) -> bytes:
    """`value` with metadata.resourceVersion set. metadata must be the first object in it, and must not be empty."""
    at = value.index(_METADATA) + len(_METADATA)
    return b'%b"resourceVersion":"%d",%b' % (value[:at], revision, value[at:])
