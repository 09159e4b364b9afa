"""`knarr down --purge` on a cluster without containers, which needs no root: nothing names it any more."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from knarr.cli.lost import holds, record_of

REPOSITORY = Path(__file__).parents[2]


def test_a_purged_cluster_is_gone_from_the_default_kubeconfig_too(tmp_path: Path) -> None:
    data, environment = tmp_path / "data", {**os.environ, "HOME": str(tmp_path)}
    environment.pop("KUBECONFIG", None)

    def knarr(*arguments: str) -> None:
        command = [sys.executable, "-m", "knarr.cli.main", *arguments, "--data-dir", str(data)]
        subprocess.run(command, check=True, timeout=60, env=environment, cwd=REPOSITORY, capture_output=True)

    knarr("up", "--detach", "--runtime", "sim", "--listen", "127.0.0.1:0")
    try:
        assert "knarr" in (tmp_path / ".kube" / "config").read_text()
    finally:
        knarr("down", "--purge")
    assert "knarr" not in (tmp_path / ".kube" / "config").read_text()
    assert not data.exists()


@pytest.mark.parametrize("recorded", [True, False], ids=["with a record", "whose record nobody could write"])
def test_a_running_cluster_whose_folder_was_deleted_ends_with_a_word(tmp_path: Path, recorded: bool) -> None:
    data, environment = tmp_path / "data", {**os.environ, "HOME": str(tmp_path)}
    environment.pop("KUBECONFIG", None)

    def knarr(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "knarr.cli.main", *arguments, "--data-dir", str(data)]
        return subprocess.run(
            command, check=True, timeout=90, env=environment, cwd=REPOSITORY, capture_output=True, text=True
        )

    knarr("up", "--detach", "--runtime", "sim", "--listen", "127.0.0.1:0")
    pid = int(json.loads(knarr("status", "-o", "json").stdout)["pid"])
    shutil.rmtree(data)
    if not recorded:
        record_of(data).unlink(missing_ok=True)
    said = f"knarr: {data} was deleted while process {pid} runs on it; the process is told to end\n"
    assert knarr("down", "--purge").stderr == said
    assert not holds(data, pid)
    assert not data.exists()
    assert knarr("down", "--purge").stderr == f"knarr: nothing to stop: {data} does not exist\n"
