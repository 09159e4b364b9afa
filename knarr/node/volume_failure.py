"""What is said of a volume that a pod can't have now."""

from __future__ import annotations


class VolumeFailure(Exception):
    """A volume that can't be had now: what FailedMount says."""

    def __init__(self, volume: str, message: str, *, event: str = "", waits: bool = False) -> None:
        """`event` is the whole text for users, where it isn't the usual; `waits`: for others, who may be done soon."""
        super().__init__(message)
        self.volume = volume
        self.event = event or f'MountVolume.SetUp failed for volume "{volume}" : {message}'
        self.waits = waits
