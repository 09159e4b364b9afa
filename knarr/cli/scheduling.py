"""What a user has configured about scheduling, read into what the scheduler takes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from knarr.config import Config, ConfigError
from knarr.scheduler.configuration import Profile, SchedulerConfigError, read_scheduler_config


def profiles(config: Config) -> Sequence[Profile]:
    """Raises ConfigError."""
    if not config.scheduler_config:
        return (Profile(),)
    try:
        return read_scheduler_config(Path(config.scheduler_config))
    except SchedulerConfigError as error:
        raise ConfigError([f"schedulerConfig: {problem}" for problem in error.problems]) from None
