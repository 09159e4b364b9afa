"""What runs in the background finds the files that were named where it was started."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from knarr.cli.main import main

REPOSITORY = Path(__file__).parents[2]
SCHEDULER = """
apiVersion: kubescheduler.config.k8s.io/v1
kind: KubeSchedulerConfiguration
profiles: [{schedulerName: mine}]
"""


def test_a_detached_cluster_reads_and_writes_files_beside_who_started_it(tmp_path: Path) -> None:
    (tmp_path / "scheduler.yaml").write_text(SCHEDULER)
    (tmp_path / "tokens.csv").write_text("secret,someone,1\n")
    environment = {**os.environ, "KUBECONFIG": "mine:other", "PYTHONPATH": str(REPOSITORY)}

    def knarr(*words: str) -> None:
        command = [sys.executable, "-m", "knarr.cli.main", *words, "--data-dir", str(tmp_path / "data")]
        subprocess.run(command, check=True, timeout=60, env=environment, cwd=tmp_path, capture_output=True)

    files = ("--scheduler-config", "scheduler.yaml", "--token-auth-file", "tokens.csv")
    knarr("up", "--detach", "--runtime", "sim", "--listen", "127.0.0.1:0", *files)
    try:
        assert "knarr" in (tmp_path / "mine").read_text()
    finally:
        knarr("down", "--purge")
    assert "knarr" not in (tmp_path / "mine").read_text()


def test_a_node_looks_for_its_kubeconfig_there_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "admin.conf").write_text("{}")
    assert main(["node", "--detach", "--data-dir", str(tmp_path / "data"), "--kubeconfig", "admin.conf"]) == 2
    assert f"{tmp_path / 'admin.conf'} names no cluster" in capsys.readouterr().err
