"""The scheduler: `Scheduler(client, informers, clock).run()`."""

from __future__ import annotations

from knarr.scheduler.scheduler import Scheduler

__all__ = ["Scheduler"]
