"""Layers are unpacked as they are meant, and never outside of their folder."""

from __future__ import annotations

import io
import os
import stat
import tarfile
import tempfile
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from knarr.node.runtime.layers import UnsafeLayer, is_whiteout, unpack

pytestmark = pytest.mark.e2e  # owners, devices and overlay attributes need root


def entry(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", **fields: object) -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type, made.linkname, made.mode, made.mtime = kind, link, 0o755 if kind == tarfile.DIRTYPE else 0o644, 1000
    for key, value in fields.items():
        setattr(made, key, value)
    return made


def archive(*entries: tarfile.TarInfo | tuple[tarfile.TarInfo, bytes]) -> io.BytesIO:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for one in entries:
            info, data = one if isinstance(one, tuple) else (one, b"")
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    buffer.seek(0)
    return buffer


def layer(path: Path, *entries: tarfile.TarInfo | tuple[tarfile.TarInfo, bytes], lower: Iterable[Path] = ()) -> Path:
    path.mkdir()
    unpack(archive(*entries), str(path), [str(one) for one in lower])
    return path


def opaque(path: Path) -> bool:
    return "trusted.overlay.opaque" in os.listxattr(path)


def test_content_owner_mode_time_and_links_are_kept(tmp_path: Path) -> None:
    root = layer(
        tmp_path / "one",
        entry("./"),
        entry("bin/", tarfile.DIRTYPE, mode=0o1777, uid=3, gid=4, mtime=77),
        (entry("bin/tool", mode=0o4755, uid=1, gid=2, mtime=55), b"content"),
        entry("bin/soft", tarfile.SYMTYPE, "/bin/tool"),
        entry("bin/hard", tarfile.LNKTYPE, "bin/tool"),
        entry("null", tarfile.CHRTYPE, devmajor=1, devminor=3),
        entry("pipe", tarfile.FIFOTYPE),
    )
    tool = (root / "bin/tool").stat()
    assert (stat.S_IMODE(tool.st_mode), tool.st_uid, tool.st_gid, tool.st_mtime) == (0o4755, 1, 2, 55)
    assert (root / "bin/tool").read_bytes() == b"content"
    folder = (root / "bin").stat()
    assert (stat.S_IMODE(folder.st_mode), folder.st_uid, folder.st_gid, folder.st_mtime) == (0o1777, 3, 4, 77)
    assert os.readlink(root / "bin/soft") == "/bin/tool"
    assert (root / "bin/hard").stat().st_ino == tool.st_ino
    assert stat.S_ISCHR((root / "null").stat().st_mode)
    assert (root / "null").stat().st_rdev == os.makedev(1, 3)
    assert stat.S_ISFIFO((root / "pipe").stat().st_mode)


def test_attributes_are_kept_but_none_that_speaks_to_overlayfs(tmp_path: Path) -> None:
    headers = {
        "SCHILY.xattr.user.colour": "red",
        "SCHILY.xattr.trusted.overlay.opaque": "y",
        "SCHILY.xattr.trusted.overlay.redirect": "/etc",
    }
    root = layer(tmp_path / "one", entry("d", tarfile.DIRTYPE, pax_headers=headers))
    assert os.listxattr(root / "d") == ["user.colour"]
    assert os.getxattr(root / "d", "user.colour") == b"red"


def test_a_whiteout_hides_what_is_below(tmp_path: Path) -> None:
    root = layer(tmp_path / "one", entry("a", tarfile.DIRTYPE), entry("a/.wh.gone"))
    assert is_whiteout((root / "a/gone").lstat())
    assert not (root / "a/.wh.gone").exists()


def test_an_opaque_folder_hides_all_below_and_keeps_its_own(tmp_path: Path) -> None:
    root = layer(tmp_path / "one", (entry("a/new"), b"x"), entry("a/.wh..wh..opq"))
    assert opaque(root / "a")
    assert (root / "a/new").read_bytes() == b"x"


@pytest.mark.parametrize("whiteout_first", [True, False])
def test_a_folder_deleted_and_made_anew_in_one_layer_keeps_nothing_from_below(
    tmp_path: Path, whiteout_first: bool
) -> None:
    entries = [entry(".wh.a"), entry("a", tarfile.DIRTYPE)]
    root = layer(tmp_path / "one", *(entries if whiteout_first else reversed(entries)))
    assert (root / "a").is_dir()
    assert opaque(root / "a")


def test_a_file_replaces_a_folder_and_a_folder_a_file(tmp_path: Path) -> None:
    root = layer(tmp_path / "one", (entry("a/b"), b"1"), (entry("a"), b"2"), (entry("c"), b"3"), (entry("c/d"), b"4"))
    assert (root / "a").read_bytes() == b"2"
    assert (root / "c/d").read_bytes() == b"4"


def test_folders_that_a_layer_needs_but_does_not_name_are_as_those_below(tmp_path: Path) -> None:
    below = layer(tmp_path / "one", entry("tmp", tarfile.DIRTYPE, mode=0o1777, uid=9))
    above = layer(tmp_path / "two", (entry("tmp/file"), b""), lower=[below])
    made = (above / "tmp").stat()
    assert (stat.S_IMODE(made.st_mode), made.st_uid) == (0o1777, 9)


def test_a_hard_link_to_a_file_of_a_layer_below_is_a_copy(tmp_path: Path) -> None:
    below = layer(tmp_path / "one", (entry("a", mode=0o4755, uid=5), b"data"))
    above = layer(tmp_path / "two", entry("b", tarfile.LNKTYPE, "a"), lower=[below])
    made = (above / "b").stat()
    assert ((above / "b").read_bytes(), stat.S_IMODE(made.st_mode), made.st_uid) == (b"data", 0o4755, 5)
    assert made.st_ino != (below / "a").stat().st_ino


@pytest.mark.parametrize(
    "evil",
    [
        [entry("../out")],
        [entry("a/../../out")],
        [entry("h", tarfile.LNKTYPE, "../secret")],
        [entry("h", tarfile.LNKTYPE, "nowhere")],
        [entry("h", tarfile.LNKTYPE, "/")],
        [entry("a", tarfile.DIRTYPE), entry("a/.wh...")],
        [entry(".wh.")],
    ],
    ids=lambda evil: evil[-1].name,
)
def test_what_leads_out_is_refused(tmp_path: Path, evil: list[tarfile.TarInfo]) -> None:
    (tmp_path / "secret").write_text("secret")
    with pytest.raises(UnsafeLayer):
        layer(tmp_path / "one", *evil)
    assert sorted(os.listdir(tmp_path)) == ["one", "secret"]


def test_links_to_outside_are_followed_inside(tmp_path: Path) -> None:
    (tmp_path / "target").mkdir()
    root = layer(
        tmp_path / "one",
        entry("abs", tarfile.SYMTYPE, str(tmp_path / "target")),
        (entry("abs/file"), b"x"),
        entry("up", tarfile.SYMTYPE, "../../target"),
        (entry("up/file"), b"y"),
        entry("aim", tarfile.SYMTYPE, str(tmp_path / "target/new")),
        (entry("aim"), b"z"),
    )
    assert os.listdir(tmp_path / "target") == []
    assert (root / str(tmp_path / "target").lstrip("/") / "file").read_bytes() == b"x"
    assert (root / "target/file").read_bytes() == b"y"
    assert not (root / "aim").is_symlink()


def test_a_hard_link_through_a_link_to_outside_reaches_nothing(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    with pytest.raises(UnsafeLayer):
        layer(
            tmp_path / "one",
            entry("d", tarfile.SYMTYPE, str(tmp_path)),
            entry("h", tarfile.LNKTYPE, "d/secret"),
        )


def test_a_broken_tar_is_refused(tmp_path: Path) -> None:
    whole = archive((entry("a"), b"x" * 5000)).getvalue()
    for damaged in (whole[:2000], b"garbage" * 300):
        with tempfile.TemporaryDirectory(dir=tmp_path) as target, pytest.raises(UnsafeLayer):
            unpack(io.BytesIO(damaged), target)


STEP = st.sampled_from(["..", ".", "a", "b", "etc", "", "link", ".wh.a", ".wh..wh..opq", ".wh...", "\udcff"])
NAME = st.builds(
    lambda root, steps: root + "/".join(steps), st.sampled_from(["", "/", "./"]), st.lists(STEP, max_size=4)
)
KIND = st.sampled_from(
    [tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE]
)
ENTRY = st.builds(lambda name, kind, link: (name, kind, link), NAME, KIND, NAME)


@given(st.lists(ENTRY, max_size=8))
@settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.too_slow])
def test_no_tar_writes_outside_of_its_folder(entries: list[tuple[str, bytes, str]]) -> None:
    with tempfile.TemporaryDirectory() as above:
        root = os.path.join(above, "x", "root")
        os.makedirs(root)
        with open(os.path.join(above, "secret"), "w") as file:
            file.write("secret")
        made = [entry(name or ".", kind, link) for name, kind, link in entries]
        try:
            unpack(archive(*((one, b"data" if one.type == tarfile.REGTYPE else b"") for one in made)), root)
        except (UnsafeLayer, OSError, ValueError):
            pass
        assert sorted(os.listdir(above)) == ["secret", "x"]
        assert os.listdir(os.path.join(above, "x")) == ["root"]
        assert os.stat(os.path.join(above, "secret")).st_nlink == 1
        with open(os.path.join(above, "secret")) as file:
            assert file.read() == "secret"
