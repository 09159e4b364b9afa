"""docs/performance.md: the figures, how they were measured, and where the time goes."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from bench import subjects


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the table."""

    what: str
    value: str
    expected: str = ""
    by: str = "knarr"


def document(figures: Sequence[Figure], stages: Mapping[str, Mapping[str, float]], *, upstream: bool) -> str:
    rows = "\n".join(f"| {each.by} | {each.what} | {each.value} | {each.expected} |" for each in figures)
    beside = (
        "kube-apiserver and etcd were measured beside it, by the same generator."
        if upstream
        else "kube-apiserver and etcd were not installed there; where they are, `make bench` measures them beside it."
    )
    load_1, load_5, _ = os.getloadavg()
    return f"""# Performance

Written by `make bench` on {datetime.now(UTC):%Y-%m-%d}: {machine()}. {beside}
Load average at the end, the bench itself included: {load_1:.1f} (1 minute), {load_5:.1f} (5 minutes). Above 2.5, others
were at work on the machine too: then requests a second and milliseconds say little, and processor time says what
a change has done.

| by | figure | measured | expected |
|---|---|---|---|
{rows}

How it is measured: `bench/load.py` is the load generator, a process of its own that speaks HTTP/1.1 over TLS with a
client certificate, each connection sending its next request when the last is answered. It shares the machine's
processors with the server. It asks as `{subjects.USER}`, an ordinary user whom a Role allows it, so RBAC decides about
each request; authentication, admission, validation and managedFields are on, as always. A pod is 2.5 KB as it is kept.
Data folders are on the disk, and every create is on it (SQLite WAL, synchronous=FULL) before it is answered.
"µs of processor each" is what the server's process used, in all its threads, divided by the requests. Memory is the
proportional set size of the whole process. Ready means that the node is Ready, the default ServiceAccount is there and
a pod can be created; it is counted from the start of the process, so Python's own start is in it. One section alone:
`make bench ARGS="--only api"`.

Figures "in process" and of scheduling have the whole control plane in the bench's own process (`bench/hollow.py`):
the store on the disk, every request through the door less TLS, all nodes hollow. Scheduling is measured as upstream's
scheduler_perf does it: the pods are there when the scheduler starts, the nodes are only objects, and the time ends when
the last pod shows its node. The processor time beside it is all of the process: choices, bindings, events, and the
caches of all loops.

The figure of 1,000 watchers can be read in two ways, and both are measured. Told of one of {subjects.SHARDS} namespaces
each, an event goes to 20 watches. Told of everything, 200 events a second are 200,000 deliveries a second to decrypt
and count: most of the machine is then the generator's, and how old an event is when it arrives is mostly the time that
one process needs to read 1,000 connections once. A watch that falls behind is told of several events in one write, so
the server's share stays below a core.

## Where the time goes

Microseconds of each stage of the door, without network and disk: `python -m bench.stages`. The stages of a whole
request add up to more than the request takes without the stopwatch, which is the first line.

{_table(stages)}

What a request costs besides: TLS and HTTP (what a GET costs, less its few microseconds at the door), the thread that
writes to SQLite, and for pods the informers of this process, which decode each event once for all loops (about
a tenth of a create).

What is done to keep it low:

* An answer of plain JSON goes out as one write with a constant head. All time limits of a minute share one timer, and
  so do a watch's bookmarks and its end: a timer for each request was a tenth of a GET.
* What RBAC decided is remembered by user, groups, verb, resource and namespace until a role or a binding changes. Which
  admission plugins act on a kind is looked up once; what they decide by, they read from memory.
* A body is decoded once into its type. Amounts (`16Mi`) are parsed once; pods of a template say the same ones. Their
  spec without its volumes (that of the token has another name in each pod) and what is in the volumes are found
  faultless once, the fields of their spec and labels told once, by their JSON.
* Commits that wait together are one statement and one fsync.
* An event is encoded once for all watches of the same form; a list joins stored bytes.
* A list by label among more than 500 objects of a kind asks an index of labels, made when it is first wanted.
* Objects live as their bytes, events share them; what was encoded for watches is kept for the last 1,000 events only.
  Informers keep objects decoded, without managedFields, and share equal labels.
"""


def _table(stages: Mapping[str, Mapping[str, float]]) -> str:
    names = list(stages)
    rows = [f"| stage | {' | '.join(names)} |", f"|---|{'---|' * len(names)}"]
    rows += [
        f"| {stage} | {' | '.join(f'{stages[name][stage]:.0f}' for name in names)} |"
        for stage in next(iter(stages.values()), {})
    ]
    return "\n".join(rows)


def machine() -> str:
    cpu = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.machine(),
    )
    memory = int(Path("/proc/meminfo").read_text().split()[1]) / 1e6
    python = f"Python {platform.python_version()}"
    return f"{os.cpu_count()} cores of {cpu}, {memory:.0f} GB, Linux {platform.release()}, {python}"
