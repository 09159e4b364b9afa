"""`knarr status`: how the cluster on a data folder is, for people and (-o json) for programs."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from knarr.cli.control import ControlError, NotRunning, call
from knarr.cli.exit_codes import FAILED, NOT_RUNNING, OK
from knarr.cli.lock import is_held
from knarr.config import default_data_dir


def status(data_dir: str | None, *, as_json: bool) -> int:
    """Answers the exit code: 0 ready, 1 running but not ready, 3 not running."""
    folder = Path(data_dir or default_data_dir())
    try:
        told = call(folder, "GET", "/status")
    except NotRunning:
        held, holder = is_held(folder)
        told = {
            "state": "starting" if held else "stopped",
            "dataDir": str(folder),
            "pid": holder.pid if holder else None,
        }
    except ControlError as error:
        print(f"knarr: {error}", file=sys.stderr)
        return FAILED
    print(json.dumps(told, indent=2) if as_json else _text(told))
    return {"ready": OK, "stopped": NOT_RUNNING}.get(told["state"], FAILED)


def _text(told: dict[str, Any]) -> str:
    lines = [f"knarr on {told['dataDir']}: {told['state']}"]
    if told["state"] == "stopped":
        return lines[0]
    names = [
        ("process", f"{told['pid']}, since {told['since']}" if told.get("since") else told.get("pid")),
        ("server", told.get("server")),
        ("kubeconfig", told.get("kubeconfig")),
        ("runtime", told.get("runtime")),
        ("proxy", told.get("proxyMode")),
        ("memory", f"{told['memoryBytes'] / 1e6:.0f} MB" if told.get("memoryBytes") else None),
        ("waiting for", ", ".join(told.get("waitingFor") or [])),
    ]
    lines += [f"  {name:<12}{value}" for name, value in names if value]
    lines += [f"  node {node['name']:<20} {'Ready' if node['ready'] else 'NotReady'}" for node in told.get("nodes", [])]
    return "\n".join(lines)
