"""What a user waits for when a command of `knarr` begins."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def test_modules_are_compiled_once_even_where_the_environment_says_not_to(tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONPYCACHEPREFIX": str(tmp_path / "compiled")}
    command = [sys.executable, "-m", "knarr.cli.main", "status", "--data-dir", str(tmp_path / "data")]
    subprocess.run(command, env=environment, capture_output=True, check=False, timeout=60)
    assert list((tmp_path / "compiled").rglob("status.*.pyc"))
