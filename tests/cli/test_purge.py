"""`knarr down --purge` on a cluster without containers, which needs no root: nothing names it any more."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

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
