"""What stands in the way is told in a line, with where and why; never by a traceback."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from knarr import pki
from knarr.cli import kubeconfig, lost, teardown
from knarr.cli.connection import Connection, Kind
from knarr.cli.failures import described
from knarr.cli.kubeconfig import Access, KubeconfigError
from knarr.cli.main import main
from knarr.cli.progress import PipeProgress
from knarr.clock import SystemClock

REPOSITORY = Path(__file__).parents[2]


def test_an_error_of_the_system_is_told_by_where_and_why() -> None:
    assert described(FileNotFoundError(2, "No such file or directory", "/none")) == "/none: No such file or directory"
    assert described(ConnectionResetError(104, "Connection reset by peer")) == "Connection reset by peer"
    assert described(TimeoutError()) == "TimeoutError"
    assert described(ValueError("no number")) == "ValueError: no number"


@pytest.mark.parametrize("more", [[], ["--detach"]], ids=["foreground", "background"])
def test_a_data_folder_that_cant_be_made_is_named(
    more: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    folder = tmp_path / "file" / "data"
    assert main(["up", "--runtime", "sim", "--data-dir", str(folder), *more]) == 1
    assert capsys.readouterr().err == f"knarr: {folder}: Not a directory\n"


def test_a_log_that_cant_be_written_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "knarr.log").mkdir()
    assert main(["up", "--runtime", "sim", "--data-dir", str(tmp_path), "--detach"]) == 1
    assert capsys.readouterr().err == f"knarr: {tmp_path / 'knarr.log'}: Is a directory\n"


def test_who_waits_is_told_also_when_the_log_is_on_a_full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    log = open("/dev/full", "w")  # noqa: SIM115
    monkeypatch.setattr(sys, "stderr", log)
    progress = PipeProgress(writing)
    progress.say("knarr: No space left on device")
    progress.settle(1)
    monkeypatch.undo()
    with pytest.raises(OSError, match="No space left"):
        log.close()
    with open(reading) as lines:
        assert [json.loads(line) for line in lines] == [{"say": "knarr: No space left on device"}, {"exit": 1}]


def test_a_port_that_somebody_else_has_is_named_as_it_was_set(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        command = [sys.executable, "-m", "knarr.cli.main", "up", "--runtime", "sim", "--listen", address]
        places = ["--data-dir", str(tmp_path / "data"), "--kubeconfig", str(tmp_path / "config")]
        ended = subprocess.run(
            command + places, cwd=REPOSITORY, capture_output=True, text=True, timeout=60, check=False
        )
    assert ended.returncode == 1
    assert ended.stderr.splitlines()[-1] == f"knarr: listen: {address}: Address already in use"
    assert not (tmp_path / "config").exists()


def test_a_server_that_does_not_answer_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = pki.ensure(tmp_path / "pki", SystemClock(), dns_names=["localhost"], addresses=["127.0.0.1"])
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        server = f"https://127.0.0.1:{nobody.getsockname()[1]}"
        access = Access(server, made.ca.certificate_pem, made.admin.certificate_pem, made.admin.key_pem)
        kubeconfig.add(tmp_path / "config", access)
        assert main(["token", "list", "--kubeconfig", str(tmp_path / "config")]) == 1
        assert capsys.readouterr().err == f"knarr: {server}: Connection refused\n"
        (tmp_path / "a.yaml").write_text("{apiVersion: v1, kind: ConfigMap, metadata: {name: a}}")
        assert main(["apply", "-f", str(tmp_path / "a.yaml"), "--kubeconfig", str(tmp_path / "config")]) == 1
        assert capsys.readouterr().err == f"knarr: ConfigMap a: {server}: Connection refused\n"


def test_certificates_of_a_kubeconfig_that_are_none_are_told() -> None:
    for broken in (b"no PEM", b"\xff"):
        with pytest.raises(KubeconfigError, match="certificates can't be used"):
            Connection(Access("https://127.0.0.1:6443", broken, b"", b""))


def test_a_name_is_one_element_of_a_path_whatever_is_in_it() -> None:
    pods = Kind("/api/v1", "pods", namespaced=True)
    assert pods.path("a b", "x/../y?z") == "/api/v1/namespaces/a%20b/pods/x%2F..%2Fy%3Fz"


def test_a_node_s_own_file_that_is_damaged_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "node.json").write_text("{")
    assert main(["node", "--data-dir", str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith(f"knarr: {tmp_path / 'node.json'}: ")


def test_a_manifest_that_is_not_there_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["apply", "-f", str(tmp_path / "none.yaml")]) == 2
    assert capsys.readouterr().err == f"knarr: {tmp_path / 'none.yaml'}: No such file or directory\n"


def test_a_record_of_what_runs_that_is_damaged_is_named_where_no_copy_of_it_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(lost, "RECORDS", tmp_path / "copies")
    data = tmp_path / "data"
    data.mkdir()
    record = teardown.Running(str(data), node=None, kubeconfig="", server="")
    teardown.write_record(record)
    (data / "running.json").write_text("{")
    assert teardown.read_record(data) == record
    lost.record_of(data).unlink()
    assert main(["down", "--purge", "--data-dir", str(data)]) == 1
    said = (
        f"knarr: {data / 'running.json'}: can't be read (Input data was truncated); the next `knarr up` writes it anew"
    )
    assert capsys.readouterr().err == said + "\n"
    assert data.exists()
