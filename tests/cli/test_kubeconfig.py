"""The kubeconfig: merged, never trampled on."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
import yaml

from knarr.cli import kubeconfig
from knarr.cli.kubeconfig import Access, KubeconfigError

ACCESS = Access("https://127.0.0.1:6443", b"ca", b"certificate", b"key")
OTHER = {
    "apiVersion": "v1",
    "kind": "Config",
    "preferences": {"colors": True},
    "clusters": [{"name": "work", "cluster": {"server": "https://work.example"}}],
    "users": [{"name": "me", "user": {"token": "t"}}],
    "contexts": [{"name": "work", "context": {"cluster": "work", "user": "me"}}],
    "current-context": "work",
}


def test_new_file_reads_back_and_is_private(tmp_path: Path) -> None:
    path = tmp_path / "new/config"
    assert kubeconfig.add(path, ACCESS)
    assert kubeconfig.read(path) == ACCESS
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [each.name for each in path.parent.iterdir()] == ["config"]


def test_other_contexts_stay_and_knarr_becomes_current(tmp_path: Path) -> None:
    path = tmp_path / "config"
    path.write_text(yaml.safe_dump(OTHER))
    kubeconfig.add(path, ACCESS)
    merged = yaml.safe_load(path.read_text())
    assert merged["current-context"] == "knarr"
    assert merged["preferences"] == {"colors": True}
    for part in ("clusters", "users", "contexts"):
        assert merged[part][0] == OTHER[part][0]  # type: ignore[index]
        assert [each["name"] for each in merged[part]][1:] == ["knarr"]


def test_second_start_changes_nothing_and_a_new_port_changes_one_entry(tmp_path: Path) -> None:
    path = tmp_path / "config"
    kubeconfig.add(path, ACCESS)
    before = path.stat().st_mtime_ns
    assert not kubeconfig.add(path, ACCESS)
    assert path.stat().st_mtime_ns == before
    moved = Access("https://127.0.0.1:7443", b"ca", b"certificate", b"key")
    assert kubeconfig.add(path, moved)
    assert kubeconfig.read(path) == moved
    assert len(yaml.safe_load(path.read_text())["clusters"]) == 1


def test_removal_leaves_what_was_there_before(tmp_path: Path) -> None:
    path = tmp_path / "config"
    path.write_text(yaml.safe_dump(OTHER))
    kubeconfig.add(path, ACCESS)
    assert kubeconfig.remove(path, ACCESS.server)
    assert yaml.safe_load(path.read_text()) == OTHER
    assert not kubeconfig.remove(path)


def test_removal_spares_the_entry_of_another_cluster(tmp_path: Path) -> None:
    path = tmp_path / "config"
    kubeconfig.add(path, ACCESS)
    assert not kubeconfig.remove(path, "https://127.0.0.1:7443")
    assert kubeconfig.read(path) == ACCESS


def test_symbolic_link_stays_one(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "real")
    kubeconfig.add(tmp_path / "link", ACCESS)
    assert (tmp_path / "link").is_symlink()
    assert kubeconfig.read(tmp_path / "real") == ACCESS


def test_file_that_is_no_kubeconfig_is_refused_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "config"
    for text in ("- a\n", "a: [\n", "clusters: 5\n", "clusters: [5]\n", "users: [{user: 5}]\n", "a\xff"):
        path.write_text(text, encoding="latin-1")
        with pytest.raises(KubeconfigError, match=str(path)):
            kubeconfig.add(path, ACCESS)
        assert path.read_text(encoding="latin-1") == text


def test_entries_that_say_nothing_are_no_fault(tmp_path: Path) -> None:
    path = tmp_path / "config"
    path.write_text("{clusters: null, users: [{name: me, user: null}], contexts: [{name: none, context: null}]}")
    with pytest.raises(KubeconfigError, match="names no cluster"):
        kubeconfig.read(path)
    assert kubeconfig.add(path, ACCESS)
    assert kubeconfig.read(path) == ACCESS


def test_data_that_is_not_base64_is_told(tmp_path: Path) -> None:
    path = tmp_path / "config"
    kubeconfig.add(path, ACCESS)
    path.write_text(path.read_text().replace("certificate-authority-data: ", "certificate-authority-data: xx"))
    with pytest.raises(KubeconfigError, match="certificate-authority-data: Invalid base64"):
        kubeconfig.read(path)


def test_missing_cluster_is_said(tmp_path: Path) -> None:
    with pytest.raises(KubeconfigError, match="names no cluster"):
        kubeconfig.read(tmp_path / "none")


def test_first_file_of_the_environment_variable_is_meant(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", ":/a/b:/c")
    assert kubeconfig.default_path() == Path("/a/b")
    monkeypatch.delenv("KUBECONFIG")
    assert kubeconfig.default_path() == Path.home() / ".kube/config"
