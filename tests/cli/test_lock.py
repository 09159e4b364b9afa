"""One process a data folder."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from knarr.cli.lock import DataFolderHeld, DataFolderLock, Holder, is_held

HOLD = """
import sys
from pathlib import Path
from knarr.cli.lock import DataFolderLock
lock = DataFolderLock.acquire(Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""


def test_second_is_told_who_holds_it(tmp_path: Path) -> None:
    lock = DataFolderLock.acquire(tmp_path)
    with pytest.raises(DataFolderHeld, match=f"held by process {os.getpid()} since {lock.since}$"):
        DataFolderLock.acquire(tmp_path)
    lock.tell("https://127.0.0.1:6443")
    holder = Holder(os.getpid(), lock.since, "https://127.0.0.1:6443")
    with pytest.raises(DataFolderHeld, match=r"at https://127\.0\.0\.1:6443$") as caught:
        DataFolderLock.acquire(tmp_path)
    assert caught.value.holder == holder
    assert is_held(tmp_path) == (True, holder)
    lock.release()
    assert is_held(tmp_path) == (False, None)
    DataFolderLock.acquire(tmp_path).release()


def test_holder_that_has_not_said_who_it_is(tmp_path: Path) -> None:
    lock = DataFolderLock.acquire(tmp_path)
    os.truncate(tmp_path / "lock", 0)
    with pytest.raises(DataFolderHeld, match="just starting"):
        DataFolderLock.acquire(tmp_path)
    lock.release()


def test_killed_holder_holds_nothing(tmp_path: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert holder.stdout is not None
    assert holder.stdin is not None
    assert holder.stdout.readline() == b"held\n"
    held, told = is_held(tmp_path)
    assert (held, told and told.pid) == (True, holder.pid)
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    holder.stdout.close()
    holder.stdin.close()
    assert is_held(tmp_path) == (False, None)
    DataFolderLock.acquire(tmp_path).release()


def test_folder_that_does_not_exist_is_not_held(tmp_path: Path) -> None:
    assert is_held(tmp_path / "none") == (False, None)
    assert not (tmp_path / "none").exists()
