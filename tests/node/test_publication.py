"""Files of a volume change all at once."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from knarr.node import subpaths
from knarr.node.publication import PublishedFile, publish


def files(**contents: str) -> dict[str, PublishedFile]:
    return {name: PublishedFile(text.encode(), 0o644) for name, text in contents.items()}


def shown(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir() if not path.name.startswith("..")}


def test_files_appear_change_and_vanish(tmp_path: Path) -> None:
    assert publish(str(tmp_path), files(a="1", b="2"), "one")
    assert shown(tmp_path) == {"a": "1", "b": "2"}
    assert os.readlink(tmp_path / "..data") == "..one"
    assert os.readlink(tmp_path / "a") == "..data/a"
    assert not publish(str(tmp_path), files(a="1", b="2"), "two"), "nothing has changed"
    assert publish(str(tmp_path), files(a="3", c="4"), "three")
    assert shown(tmp_path) == {"a": "3", "c": "4"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["..data", "..three", "a", "c"]


def test_a_reader_that_holds_the_old_files_keeps_them_together(tmp_path: Path) -> None:
    publish(str(tmp_path), files(a="1", b="1"), "one")
    held = os.open(tmp_path / "..data/a", os.O_RDONLY)
    publish(str(tmp_path), files(a="2", b="2"), "two")
    assert os.read(held, 10) == b"1"
    os.close(held)


def test_modes_and_folders(tmp_path: Path) -> None:
    wanted = {"deep/er/key": PublishedFile(b"x", 0o400), "top": PublishedFile(b"y", 0o640)}
    publish(str(tmp_path), wanted, "one")
    assert (tmp_path / "deep/er/key").read_bytes() == b"x"
    assert os.stat(tmp_path / "deep/er/key").st_mode & 0o777 == 0o400
    assert os.stat(tmp_path / "top").st_mode & 0o777 == 0o640
    assert publish(str(tmp_path), {"top": PublishedFile(b"y", 0o600)}, "two"), "a mode is a change, too"
    assert os.stat(tmp_path / "top").st_mode & 0o777 == 0o600


def test_a_half_made_publication_of_a_killed_agent_is_no_obstacle(tmp_path: Path) -> None:
    publish(str(tmp_path), files(a="1"), "one")
    (tmp_path / "..half").mkdir()
    os.symlink("..half", tmp_path / "..data_tmp")
    publish(str(tmp_path), files(a="2"), "two")
    assert shown(tmp_path) == {"a": "2"}


@pytest.mark.parametrize("path", ["/etc/passwd", "../up", "a/../b", "..data", "..x/y", "a//b", ""])
def test_paths_that_lead_elsewhere_are_refused(path: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="invalid path"):
        publish(str(tmp_path), {path: PublishedFile(b"", 0o644)}, "one")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("target", "sub_path"),
    [("/etc", "link"), ("..", "link"), ("/etc", "link/passwd"), ("inside/../..", "link")],
)
def test_a_link_out_of_the_volume_is_an_escape(target: str, sub_path: str, tmp_path: Path) -> None:
    volume = tmp_path / "volume"
    volume.mkdir()
    (volume / "inside").mkdir()
    os.symlink(target, volume / "link")
    with pytest.raises(subpaths.Escape):
        subpaths.opened(str(volume), sub_path)


@pytest.mark.parametrize("sub_path", ["/etc", "../x", "a/../../x"])
def test_a_sub_path_is_relative_and_goes_down_only(sub_path: str, tmp_path: Path) -> None:
    with pytest.raises(subpaths.Escape):
        subpaths.opened(str(tmp_path), sub_path)


def test_links_inside_the_volume_are_followed_and_folders_are_made(tmp_path: Path) -> None:
    publish(str(tmp_path), files(key="value"), "one")
    descriptor = subpaths.opened(str(tmp_path), "key")
    with open(f"/proc/self/fd/{descriptor}") as file:
        assert file.read() == "value"
    os.close(descriptor)
    os.close(subpaths.opened(str(tmp_path), "new/folder"))
    assert (tmp_path / "new/folder").is_dir()


_SHARED = """
import ctypes, os, sys
from knarr.node import subpaths
from knarr.node.runtime import kernel

root = sys.argv[1]
kernel.mount("tmpfs", root, "tmpfs")
assert ctypes.CDLL(None).mount(b"none", root.encode(), None, ctypes.c_ulong(1 << 20), None) == 0  # MS_SHARED
os.makedirs(root + "/host/data/disk")
target = root + "/pods/u/volume-subpaths/v/main/0"
os.makedirs(os.path.dirname(target))
subpaths.bind(root + "/host", "data", target)
kernel.mount("tmpfs", root + "/host/data/disk", "tmpfs")
subpaths.release_all(root + "/pods/u/volume-subpaths")
print(os.path.ismount(target), os.path.ismount(root + "/host/data/disk"))
"""


@pytest.mark.e2e
@pytest.mark.skipif(os.geteuid() != 0, reason="mounts need root")
def test_what_is_mounted_below_a_sub_path_on_the_host_stays_mounted(tmp_path: Path) -> None:
    """In a mount namespace of its own, with mounts shared as systemd has them."""
    command = ["unshare", "--mount", "--propagation", "private", sys.executable, "-c", _SHARED, str(tmp_path)]
    root = Path(__file__).parents[2]
    found = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30, cwd=root)
    assert found.stdout == "False True\n"
