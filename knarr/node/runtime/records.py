"""What the OCI runtime remembers of sandboxes and containers, one small JSON file each.

These files are how a restarted agent finds everything again. Each is written whole or not at all; one that a
loss of power has damaged counts as none, for then nothing that it spoke of runs any more.
"""

from __future__ import annotations

import os
from enum import StrEnum
from typing import TypeVar

import msgspec

from knarr.node.runtime import files
from knarr.node.runtime.conmon import Process
from knarr.node.runtime.contract import (
    Container,
    ContainerConfig,
    ContainerState,
    Sandbox,
    SandboxConfig,
)


class SandboxPhase(StrEnum):
    CREATING = "creating"
    """Found at start: the agent died meanwhile; what there is of it goes."""
    READY = "ready"
    STOPPED = "stopped"


class ContainerPhase(StrEnum):
    CREATING = "creating"
    CREATED = "created"
    STARTING = "starting"
    RUNNING = "running"
    EXITED = "exited"


class SandboxRecord(msgspec.Struct):
    id: str
    config: SandboxConfig
    boot_id: str
    created_at_s: float
    phase: SandboxPhase = SandboxPhase.CREATING
    ips: tuple[str, ...] = ()

    def seen(self, network_namespace: str | None) -> Sandbox:
        """As the agent sees it."""
        return Sandbox(
            self.id,
            self.config,
            self.phase is SandboxPhase.READY,
            self.ips,
            network_namespace,
            self.created_at_s,
        )


class ContainerRecord(msgspec.Struct):
    id: str
    sandbox_id: str
    config: ContainerConfig
    image_id: str
    chain: tuple[str, ...]
    stop_signal: int
    log_path: str
    cgroup: str
    boot_id: str
    created_at_s: float
    phase: ContainerPhase = ContainerPhase.CREATING
    started_at_s: float | None = None
    finished_at_s: float | None = None
    exit_code: int | None = None
    oom_killed: bool = False
    message: str = ""
    monitor: Process | None = None
    process: Process | None = None

    def seen(self) -> Container:
        """As the agent sees it."""
        state = {
            ContainerPhase.RUNNING: ContainerState.RUNNING,
            ContainerPhase.EXITED: ContainerState.EXITED,
        }.get(self.phase, ContainerState.CREATED)
        return Container(
            self.id,
            self.sandbox_id,
            self.config.name,
            self.config.attempt,
            self.config.image,
            self.image_id,
            state,
            self.created_at_s,
            self.started_at_s,
            self.finished_at_s,
            self.exit_code,
            self.oom_killed,
            self.process.pid if self.process is not None and state is ContainerState.RUNNING else None,
            self.log_path,
            self.message,
            self.config.resources,
        )


_Record = TypeVar("_Record", SandboxRecord, ContainerRecord)
RECORD_NAME = "record.json"


def write(folder: str, record: SandboxRecord | ContainerRecord) -> None:
    files.write(os.path.join(folder, RECORD_NAME), msgspec.json.encode(record))


def read(folder: str, kind: type[_Record]) -> _Record | None:
    data = files.read(os.path.join(folder, RECORD_NAME))
    if data is None:
        return None
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.ValidationError, msgspec.DecodeError):
        return None


def boot_id() -> str:
    """Changes with every start of the machine: what ran before runs no more."""
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read().strip()
