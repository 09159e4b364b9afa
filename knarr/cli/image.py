"""`knarr image`: the images on this node, for clusters without a registry in reach."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from knarr.cli.control import ControlError, NotRunning, call
from knarr.cli.exit_codes import FAILED, NOT_RUNNING, OK
from knarr.config import default_data_dir


def image(parsed: argparse.Namespace) -> int:
    """load, pull, list or rm; answers the exit code."""
    folder = Path(parsed.data_dir or default_data_dir())
    try:
        if parsed.action == "load":
            for file in parsed.file:
                for name in call(folder, "POST", "/images/load", {"path": _readable(file)}):
                    print(f"loaded {name}")
        elif parsed.action == "pull":
            print(f"pulled {parsed.image} as {call(folder, 'POST', '/images/pull', {'image': parsed.image})}")
        elif parsed.action == "rm":
            for name in parsed.image:
                print(f"removed {call(folder, 'POST', '/images/remove', {'image': name})}")
        else:
            images = call(folder, "GET", "/images")
            print(json.dumps(images, indent=2) if parsed.output == "json" else _table(images))
    except NotRunning as error:
        print(f"knarr: {error}", file=sys.stderr)
        return NOT_RUNNING
    except ControlError as error:
        print(f"knarr: {error}", file=sys.stderr)
        return FAILED
    return OK


def _readable(file: str) -> str:
    """The absolute path of a file that can be opened; raises OSError with its name otherwise."""
    with open(file, "rb"):
        return str(Path(file).resolve())


def _table(images: list[dict[str, Any]]) -> str:
    rows = [("IMAGE", "ID", "SIZE")]
    for each in images:
        size = f"{each['sizeBytes'] / 1e6:.1f} MB"
        rows += [(name, each["id"].removeprefix("sha256:")[:12], size) for name in each["names"] or ["<none>"]]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
