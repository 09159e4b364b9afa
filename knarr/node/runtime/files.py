"""Small files that are either wholly old or wholly new, also after a crash. Meant for threads."""

from __future__ import annotations

import os


def read(path: str) -> bytes | None:
    """The content, or None when there is no such file."""
    try:
        with open(path, "rb") as file:
            return file.read()
    except FileNotFoundError:
        return None


def write(path: str, data: bytes, *, durable: bool = False) -> None:
    """Replace the file at once. `durable`: also safe from a loss of power, not only from a crash."""
    staging = f"{path}.new"
    with open(os.open(staging, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "wb") as file:
        file.write(data)
        if durable:
            file.flush()
            os.fsync(file.fileno())
    os.rename(staging, path)
    if durable:
        folder = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def remove(path: str) -> None:
    """Remove the file if there is one."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
