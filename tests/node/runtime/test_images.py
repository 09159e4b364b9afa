"""Images: taken from archives and from a real registry, wholly or not at all."""

# ruff: noqa: ASYNC110, ASYNC240  # a test has its loop for itself, and looks at files as they come

from __future__ import annotations

import asyncio
import gzip
import io
import json
import os
import shutil
import tarfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from knarr.clock import SystemClock
from knarr.node.runtime.contract import Credentials, PullFailure, RuntimeFailure
from knarr.node.runtime.images import ImageStore, chain_ids, pull_error
from tests import images
from tests.ports import closed_port, free_ports

pytestmark = pytest.mark.e2e  # layers are unpacked with their owners, which needs root


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[ImageStore]:
    store = await new_store(tmp_path)
    yield store
    await store.close()


async def new_store(tmp_path: Path, skopeo: str = "skopeo") -> ImageStore:
    (tmp_path / "store").mkdir(exist_ok=True)
    store = ImageStore(str(tmp_path / "store"), SystemClock(), skopeo)
    await store.start()
    return store


def archive(tmp_path: Path, name: str, recipe: images.Recipe = images.Recipe(), **how: object) -> str:
    path = str(tmp_path / f"{name.replace('/', '-').replace(':', '-')}-{len(os.listdir(tmp_path))}.tar")
    images.build(path, name, recipe, **how)  # type: ignore[arg-type]
    return path


def layer_folders(tmp_path: Path) -> set[str]:
    return {entry.name for entry in (tmp_path / "store/layers").iterdir() if entry.is_dir()}


# -- archives


@pytest.mark.parametrize("kind", ["docker", "oci"])
@pytest.mark.parametrize("compress", [False, True])
async def test_every_kind_of_archive_gives_the_same_image(
    store: ImageStore, tmp_path: Path, kind: str, compress: bool
) -> None:
    path = archive(tmp_path, "shop:v1", kind=kind, compress=compress)
    assert await store.load(path) == ["docker.io/library/shop:v1"]
    image = store.find("shop:v1")
    assert image is not None
    assert image.id == images.build(str(tmp_path / "again.tar"), "shop:v1")
    (layer,) = store.layer_paths(image.chain)
    assert os.path.getsize(f"{layer}/bin/busybox") == os.path.getsize(images.BUSYBOX)
    assert os.readlink(f"{layer}/bin/sh") == "busybox"
    assert (await store.configuration(image)).config.cmd == ("sh",)  # type: ignore[union-attr]


async def test_an_archive_that_is_compressed_as_a_whole_is_read(store: ImageStore, tmp_path: Path) -> None:
    path = archive(tmp_path, "shop:v1")
    packed = tmp_path / "packed.tar.gz"
    packed.write_bytes(gzip.compress(Path(path).read_bytes()))
    assert await store.load(str(packed)) == ["docker.io/library/shop:v1"]


async def test_what_skopeo_makes_of_it_is_read(store: ImageStore, tmp_path: Path) -> None:
    path = archive(tmp_path, "shop:v1")
    for target in (f"oci-archive:{tmp_path}/o.tar:shop:v2", f"docker-archive:{tmp_path}/d.tar:shop:v3"):
        await run("skopeo", "--insecure-policy", "copy", f"docker-archive:{path}", target)
    assert await store.load(str(tmp_path / "o.tar")) == ["docker.io/library/shop:v2"]
    assert await store.load(str(tmp_path / "d.tar")) == ["docker.io/library/shop:v3"]
    second = store.find("shop:v2")
    assert second is not None
    assert second.digests[0].startswith("docker.io/library/shop@sha256:")
    assert store.find(second.digests[0]) == second


async def test_layers_are_shared_and_removed_with_their_last_image(store: ImageStore, tmp_path: Path) -> None:
    await store.load(archive(tmp_path, "shop:v1"))
    await store.load(archive(tmp_path, "shop:v2", images.Recipe(layers=[images.tar({"/v2": b"2"})])))
    assert len(layer_folders(tmp_path)) == 2
    await store.remove("shop:v1", list)
    assert len(layer_folders(tmp_path)) == 2
    assert store.find("shop:v1") is None
    used = store.find("shop:v2")
    assert used is not None
    await store.remove("shop:v2", lambda: [used.chain])
    assert len(layer_folders(tmp_path)) == 2
    await store.sweep(list)
    assert layer_folders(tmp_path) == set()
    assert os.listdir(tmp_path / "store/layers") == os.listdir(tmp_path / "store/configurations") == []


async def test_a_name_moves_to_the_newest_image_that_has_it(store: ImageStore, tmp_path: Path) -> None:
    await store.load(archive(tmp_path, "shop:v1"))
    before = store.find("shop:v1")
    await store.load(archive(tmp_path, "shop:v1", images.Recipe(env=("NEW=1",))))
    after = store.find("shop:v1")
    assert before is not None
    assert after is not None
    assert before.id != after.id
    by_id = store.find(before.id)
    assert by_id is not None
    assert by_id.names == ()


async def test_images_are_there_after_a_restart(store: ImageStore, tmp_path: Path) -> None:
    await store.load(archive(tmp_path, "shop:v1"))
    again = await new_store(tmp_path)
    assert again.all() == store.all()
    image = again.find("shop:v1")
    assert image is not None
    assert (await again.configuration(image)).rootfs.diff_ids == image.chain


@pytest.mark.parametrize("stops_at", ["unpack", "sync_file_system", "_publish"])
async def test_a_crash_while_loading_leaves_nothing_half(
    tmp_path: Path, stops_at: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Crash(BaseException):
        pass

    def crash(*_: object, **__: object) -> None:
        raise Crash

    store = await new_store(tmp_path)
    path = archive(tmp_path, "shop:v1", images.Recipe(layers=[images.tar({"/v2": b"2"})]))
    with monkeypatch.context() as patch:
        where = {"unpack": "unpack", "sync_file_system": "kernel.sync_file_system", "_publish": "ImageStore._publish"}
        patch.setattr(f"knarr.node.runtime.images.{where[stops_at]}", crash)
        with pytest.raises(Crash):
            await store.load(path)
    # What a killed process would have left in scratch:
    (tmp_path / "store/scratch/left").mkdir()
    again = await new_store(tmp_path)
    assert again.all() == []
    assert os.listdir(tmp_path / "store/scratch") == []
    await again.load(path)
    image = again.find("shop:v1")
    assert image is not None
    assert all(Path(layer).is_dir() for layer in again.layer_paths(image.chain))


def rewritten(path: str, target: Path, changes: dict[str, bytes | None]) -> str:
    """The archive with some files changed or taken away."""
    with tarfile.open(path) as source:
        files = {
            member.name: source.extractfile(member).read()  # type: ignore[union-attr]
            for member in source
            if member.isreg()
        }
    for name, data in changes.items():
        if data is None:
            del files[name]
        else:
            files[name] = data
    target.write_bytes(images.tar(files))
    return str(target)


async def test_damaged_archives_are_refused_and_leave_nothing(store: ImageStore, tmp_path: Path) -> None:
    path = archive(tmp_path, "shop:v1")
    with tarfile.open(path) as source:
        names = source.getnames()
    layer = next(name for name in names if name.endswith("layer.tar"))
    manifest = {"Config": "x.json", "RepoTags": ["shop:v1"], "Layers": []}
    cases: dict[str, dict[str, bytes | None]] = {
        "is not sha256": {layer: images.tar({"/other": b"x"})},
        "neither a docker-save": {"manifest.json": None},
        "truncated": {"manifest.json": b"{"},
        "x.json is not in": {"manifest.json": json.dumps([manifest]).encode()},
        "layer.tar is not in the archive": {layer: None},
        "lacks": {"manifest.json": b'[{"Layers":[]}]'},
        "manifest.json lacks ": {"manifest.json": b"[1]"},
    }
    for number, (message, changes) in enumerate(cases.items()):
        damaged = rewritten(path, tmp_path / f"damaged{number}.tar", changes)
        with pytest.raises(RuntimeFailure, match=message):
            await store.load(damaged)
    (tmp_path / "nothing.tar").write_bytes(b"not a tar at all" * 100)
    for absent in ("nothing.tar", "absent.tar"):
        with pytest.raises(RuntimeFailure):
            await store.load(str(tmp_path / absent))
    assert store.all() == []
    assert layer_folders(tmp_path) == set()
    assert os.listdir(tmp_path / "store/scratch") == []


async def test_a_file_name_in_a_manifest_cannot_reach_out_of_a_folder(store: ImageStore, tmp_path: Path) -> None:
    (tmp_path / "secret.json").write_text('{"rootfs":{"diff_ids":[]}}')
    (tmp_path / "layout").mkdir()
    entry = [{"Config": "../secret.json", "RepoTags": ["a:b"], "Layers": []}]
    (tmp_path / "layout/manifest.json").write_text(json.dumps(entry))
    with pytest.raises(RuntimeFailure, match="leads out"):
        await store.load(str(tmp_path / "layout"))


async def test_whiteouts_hide_files_of_lower_layers_in_a_mounted_tree(store: ImageStore, tmp_path: Path) -> None:
    above = io.BytesIO()
    with tarfile.open(fileobj=above, mode="w") as tar:
        for name in ("bin/.wh.wget", "etc/.wh..wh..opq"):
            tar.addfile(tarfile.TarInfo(name))
        kept = tarfile.TarInfo("etc/kept")
        tar.addfile(kept)
    await store.load(archive(tmp_path, "shop:v1", images.Recipe(layers=[above.getvalue()])))
    image = store.find("shop:v1")
    assert image is not None
    lower = ":".join(reversed(store.layer_paths(image.chain)))
    (tmp_path / "mounted").mkdir()
    await run("mount", "-t", "overlay", "none", f"{tmp_path}/mounted", "-o", f"ro,lowerdir={lower}")
    try:
        assert not (tmp_path / "mounted/bin/wget").exists()
        assert (tmp_path / "mounted/bin/busybox").exists()
        assert os.listdir(tmp_path / "mounted/etc") == ["kept"]
    finally:
        await run("umount", f"{tmp_path}/mounted")


def test_chain_ids_are_those_of_the_specification() -> None:
    a, b = "sha256:" + "a" * 64, "sha256:" + "b" * 64
    assert chain_ids(()) == ()
    assert chain_ids((a,)) == (a,)
    assert chain_ids((a, b))[0] == a
    assert chain_ids((a, b))[1] != chain_ids((b, b))[1] != b


def test_the_cause_of_a_failed_pull_is_the_last_thing_skopeo_said() -> None:
    said = b'time="2024" level=info msg="a"\ntime="2024" level=fatal msg="reading \\"x\\": manifest unknown"\n'
    assert pull_error(said) == 'reading "x": manifest unknown'
    assert pull_error(b"plain words") == "plain words"
    assert pull_error(b"") == "skopeo said nothing"


# -- a registry


@dataclass
class Registry:
    address: str
    directory: Path

    async def push(self, path: str, name: str, *options: str) -> None:
        await run(
            "skopeo", "--insecure-policy", "copy", "--dest-tls-verify=false", *options,
            f"docker-archive:{path}", f"docker://{self.address}/{name}",
        )  # fmt: skip


async def run(*line: str) -> None:
    process = await asyncio.create_subprocess_exec(*line, stdout=asyncio.subprocess.DEVNULL)
    assert await process.wait() == 0


@pytest.fixture
async def registry(tmp_path: Path) -> AsyncIterator[Registry]:
    async for made in serving(tmp_path):
        yield made


@pytest.fixture
async def guarded(tmp_path: Path) -> AsyncIterator[Registry]:
    """A registry that lets in nobody but ann, whose password is "secret"."""
    (tmp_path / "htpasswd").write_text("ann:$2b$04$46lwk9gVZZeo/HgNFjxnI.SCvx6AVtaQz0tzIyfvQI8xqjMvsCtoS\n")
    access = {"auth": {"htpasswd": {"realm": "registry", "path": str(tmp_path / "htpasswd")}}}
    async for made in serving(tmp_path, **access):
        yield made


async def serving(tmp_path: Path, **settings: Any) -> AsyncIterator[Registry]:
    program = shutil.which("docker-registry")
    if program is None:
        pytest.skip("needs docker-registry")
    directory = tmp_path / "registry"
    directory.mkdir()
    (port,) = free_ports(1)
    document = {
        "version": 0.1,
        "log": {"level": "error"},
        "storage": {"filesystem": {"rootdirectory": str(directory)}},
        "http": {"addr": f"127.0.0.1:{port}"},
        **settings,
    }
    (directory / "config.yml").write_text(json.dumps(document))
    process = await asyncio.create_subprocess_exec(
        program,
        "serve",
        str(directory / "config.yml"),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        async with asyncio.timeout(30):
            while True:
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                    break
                except OSError:
                    assert process.returncode is None
                    await asyncio.sleep(0.01)
        writer.close()
        await writer.wait_closed()
        yield Registry(f"127.0.0.1:{port}", directory)
    finally:
        process.kill()
        await process.wait()


async def test_an_image_is_pulled_from_a_registry(store: ImageStore, tmp_path: Path, registry: Registry) -> None:
    path = archive(tmp_path, "shop:v1", images.Recipe(layers=[images.tar({"/v1": b"1"})]))
    await registry.push(path, "shop:v1")
    identity = await store.pull(f"{registry.address}/shop:v1", None)
    image = store.find(f"{registry.address}/shop:v1")
    assert image is not None
    assert (
        image.id
        == identity
        == images.build(str(tmp_path / "same.tar"), "shop:v1", images.Recipe(layers=[images.tar({"/v1": b"1"})]))
    )
    (digest,) = image.digests
    assert digest.startswith(f"{registry.address}/shop@sha256:")
    assert Path(store.layer_paths(image.chain)[1], "v1").read_bytes() == b"1"
    await store.remove(identity, list)
    assert await store.pull(digest, None) == identity
    assert store.find(digest) is not None
    assert os.listdir(tmp_path / "store/scratch") == []


async def test_a_registry_that_asks_who_you_are(
    store: ImageStore, tmp_path: Path, guarded: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REGISTRY_AUTH_FILE", str(tmp_path / "nobody.json"))  # not the tester's own
    await guarded.push(archive(tmp_path, "shop:v1"), "shop:v1", "--dest-creds=ann:secret")
    for credentials in (None, Credentials("ann", "wrong"), Credentials("bob", "secret")):
        with pytest.raises(PullFailure) as refused:
            await store.pull(f"{guarded.address}/shop:v1", None, credentials)
        assert refused.value.reason == "ErrImagePull"
        assert "auth" in refused.value.message
        assert "secret" not in refused.value.message
    await store.pull(f"{guarded.address}/shop:v1", None, Credentials("ann", "secret"))
    assert store.find(f"{guarded.address}/shop:v1") is not None
    assert os.listdir(tmp_path / "store/scratch") == []


async def test_pulls_of_one_image_at_once_are_one_pull(tmp_path: Path, registry: Registry) -> None:
    await registry.push(archive(tmp_path, "shop:v1"), "shop:v1")
    counting = tmp_path / "skopeo"
    counting.write_text(f'#!/bin/sh\necho >> {tmp_path}/calls\nexec skopeo "$@"\n')
    counting.chmod(0o755)
    store = await new_store(tmp_path, str(counting))
    name = f"{registry.address}/shop:v1"
    impatient = asyncio.create_task(store.pull(name, None))
    await asyncio.sleep(0)
    others = [asyncio.create_task(store.pull(name, None)) for _ in range(5)]
    await asyncio.sleep(0)
    impatient.cancel()
    assert len(set(await asyncio.gather(*others))) == 1
    assert (tmp_path / "calls").read_text() == "\n"
    await store.close()


async def test_an_image_that_the_registry_does_not_have(store: ImageStore, tmp_path: Path, registry: Registry) -> None:
    await registry.push(archive(tmp_path, "shop:v1"), "shop:v1")
    with pytest.raises(PullFailure, match="manifest unknown") as failure:
        await store.pull(f"{registry.address}/shop:v2", None)
    assert failure.value.reason == "ErrImagePull"
    assert failure.value.message.startswith(f'failed to pull image "{registry.address}/shop:v2": ')
    with pytest.raises(PullFailure, match="unknown"):
        await store.pull(f"{registry.address}/nothing", None)
    assert store.all() == []


async def test_a_registry_that_is_not_there(store: ImageStore) -> None:
    with closed_port() as port, pytest.raises(PullFailure, match="connection refused") as failure:
        await store.pull(f"127.0.0.1:{port}/shop", None)
    assert failure.value.reason == "ErrImagePull"


async def test_plain_http_is_refused_where_it_was_not_asked_for(store: ImageStore, registry: Registry) -> None:
    with pytest.raises(PullFailure, match="HTTP response to HTTPS client"):
        await store.pull(f"{registry.address}/shop", False)


async def test_closing_gives_up_pulls_and_their_processes(tmp_path: Path) -> None:
    slow = tmp_path / "skopeo"
    slow.write_text(f"#!/bin/sh\necho $$ > {tmp_path}/pid.new; mv {tmp_path}/pid.new {tmp_path}/pid\nexec sleep 3600\n")
    slow.chmod(0o755)
    store = await new_store(tmp_path, str(slow))
    pull = asyncio.create_task(store.pull("shop", None))
    async with asyncio.timeout(30):
        while not (tmp_path / "pid").exists():
            await asyncio.sleep(0.005)
    await store.close()
    with pytest.raises(asyncio.CancelledError):
        await pull
    assert not Path(f"/proc/{(tmp_path / 'pid').read_text().strip()}").exists()
    assert os.listdir(tmp_path / "store/scratch") == []


async def test_a_missing_skopeo_is_named(tmp_path: Path) -> None:
    store = await new_store(tmp_path, "/no/such/skopeo")
    with pytest.raises(PullFailure, match="not installed"):
        await store.pull("shop", None)
    await store.close()
