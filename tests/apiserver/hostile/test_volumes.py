"""Row 42: a subPath that leads out of its volume, at once or by a link that is swapped while it is looked at."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from knarr.node import subpaths
from tests.apiserver.hostile.cases import Case, refuse, table
from tests.apiserver.pipeline.door import PODS, Door, pod

MOUNT = "spec.containers[0].volumeMounts[0].subPath"


def mounting(path: str) -> object:
    made = pod("a", volumes=[{"name": "v", "emptyDir": {}}])
    made["spec"]["containers"][0]["volumeMounts"] = [{"name": "v", "mountPath": "/v", "subPath": path}]
    return made


@table(
    *(
        Case(42, path, "POST", PODS, mounting(path), 422, rf'Pod "a" is invalid: .*\.subPath: Invalid value: .*{fault}',
             [("FieldValueInvalid", MOUNT)])
        for path, fault in (
            ("../x", r"must not contain '\.\.'"),
            ("a/../../x", r"must not contain '\.\.'"),
            ("..", r"must not contain '\.\.'"),
            ("/etc", "must be a relative path"),
        )
    )
)  # fmt: skip
async def test_a_path_that_leads_out_is_invalid(door: Door, case: Case) -> None:
    await refuse(door, case)


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    (tmp_path / "volume" / "inner").mkdir(parents=True)
    (tmp_path / "host").mkdir()
    (tmp_path / "host" / "secret").write_text("of the host")
    return tmp_path / "volume"


@pytest.mark.parametrize("target", ["../host", "/etc", "inner/../../host"])
def test_row42_a_link_that_leads_out_is_refused(volume: Path, target: str) -> None:
    (volume / "link").symlink_to(target)
    for path in ("link", "link/secret", "link/new"):
        with pytest.raises(subpaths.Escape):
            subpaths.opened(str(volume), path)
    assert os.listdir(volume.parent / "host") == ["secret"]


@pytest.mark.parametrize("swapped", ["inner", "inner/deep", "inner/deep/new"])
def test_row42_a_link_swapped_between_look_and_open_is_refused(
    volume: Path, monkeypatch: pytest.MonkeyPatch, swapped: str
) -> None:
    """The container is as quick as it can be: each time a path has been resolved, the folder is a link to the host."""
    (volume / "inner" / "deep").mkdir()
    resolve = os.path.realpath

    def realpath(path: str) -> str:
        found: str = resolve(path)
        if found != str(volume) and not (volume / "inner").is_symlink():
            (volume / "inner").rename(volume / "old")
            (volume / "inner").symlink_to(volume.parent / "host")
        return found

    monkeypatch.setattr(os.path, "realpath", realpath)
    with pytest.raises(subpaths.Escape):
        subpaths.opened(str(volume), swapped)
    assert os.listdir(volume.parent / "host") == ["secret"]


def test_row42_a_link_swapped_before_a_folder_is_made_is_refused(volume: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder to be made is a link by the time it is opened again."""
    make = os.mkdir

    def mkdir(path: str, mode: int = 0o777, *, dir_fd: int | None = None) -> None:
        make(path, mode, dir_fd=dir_fd)
        (volume / path).rmdir()
        (volume / path).symlink_to(volume.parent / "host")

    monkeypatch.setattr(os, "mkdir", mkdir)
    with pytest.raises(subpaths.Escape):
        subpaths.opened(str(volume), "new")
    assert os.listdir(volume.parent / "host") == ["secret"]


def test_row42_what_was_opened_stays_what_it_was(volume: Path) -> None:
    """A swap after the look has no effect: the descriptor is bound, not the path."""
    (volume / "inner" / "file").write_text("of the volume")
    descriptor = subpaths.opened(str(volume), "inner")
    try:
        (volume / "inner").rename(volume / "old")
        (volume / "inner").symlink_to(volume.parent / "host")
        assert os.listdir(f"/proc/self/fd/{descriptor}") == ["file"]
    finally:
        os.close(descriptor)
