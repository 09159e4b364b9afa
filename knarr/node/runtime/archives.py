"""Read images out of what `docker save`, `skopeo copy` and BuildKit write.

Three shapes hold the same things, a manifest that names a configuration and layers: a docker-save archive
(`manifest.json` with file names), an OCI layout (`index.json` and `blobs/`, OCI image-spec,
image-layout.md) and skopeo's `dir:` (`manifest.json` with digests, blobs beside it). Everything is checked
against its digest. Meant to run in a thread.
"""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import lzma
import os
import platform
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any, Protocol, cast

import msgspec

DOCUMENT_BYTES_MAX = 4 << 20
"""Manifests and configurations: the distribution specification's limit for a manifest."""
INDEX_DEPTH_MAX = 4
"""An index may name an index; no tool nests deeper than 2."""
LAYERS_MAX = 127
"""What Docker and overlayfs allow."""
DECOMPRESSED_BYTES_MAX = 128 << 30
"""A whole archive that unpacks to more is a bomb."""

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "i686": "386"}
_READ_BYTES = 1 << 20


class BrokenArchive(ValueError):
    """The file is no image archive, or is damaged."""


class ImageSettings(msgspec.Struct, frozen=True, rename="pascal"):
    """The `config` part of an image configuration (OCI image-spec, config.md): how to run it."""

    user: str | None = ""
    env: tuple[str, ...] | None = ()
    entrypoint: tuple[str, ...] | None = ()
    cmd: tuple[str, ...] | None = ()
    working_dir: str | None = ""
    stop_signal: str | None = ""
    volumes: dict[str, Any] | None = None


class RootFileSystem(msgspec.Struct, frozen=True):
    diff_ids: tuple[str, ...] = ()


class ImageConfiguration(msgspec.Struct, frozen=True):
    """What the image id is the digest of."""

    config: ImageSettings | None = None
    rootfs: RootFileSystem = RootFileSystem()
    os: str = ""


class Blobs(Protocol):
    """Named files of an archive or a folder."""

    def open(self, name: str) -> IO[bytes]:
        """FileNotFoundError when there is none."""


class FoundImage(msgspec.Struct, frozen=True):
    """One image in an archive, nothing of it unpacked yet."""

    id: str
    configuration: ImageConfiguration
    configuration_bytes: bytes
    layers: tuple[str, ...]
    """Names to open in the archive, lowest first; as many as the configuration has diff ids."""
    names: tuple[str, ...]
    manifest_digest: str = ""
    """Empty in a docker-save archive, which has no manifest that a registry would know."""
    digests: dict[str, str] = msgspec.field(default_factory=dict)
    """Digest of each named blob, where the archive tells."""


@contextmanager
def opened(path: str, scratch_directory: str) -> Iterator[Blobs]:
    """The blobs of a folder or of a tar archive, also of one that is compressed as a whole."""
    if os.path.isdir(path):
        yield _Folder(path)
        return
    with open(path, "rb") as file:
        compressed = _is_compressed(file.read(6))
        file.seek(0)
        if not compressed:
            with _as_tar(file, path) as archive:
                yield _Archive(archive)
            return
        with open(os.path.join(scratch_directory, "archive.tar"), "w+b") as plain:
            with decompressed(file) as stream:
                copied = 0
                while data := stream.read(_READ_BYTES):
                    copied += len(data)
                    if copied > DECOMPRESSED_BYTES_MAX:
                        raise BrokenArchive("the archive unpacks to too much")
                    plain.write(data)
            plain.seek(0)
            with _as_tar(plain, path) as archive:
                yield _Archive(archive)


def find_images(blobs: Blobs) -> list[FoundImage]:
    """Every image in it that can run on this machine."""
    document = _document(blobs, "manifest.json")
    if isinstance(document, list):
        return [_docker_save_image(blobs, entry) for entry in document]
    if isinstance(document, dict):
        return [_manifest_image(blobs, document, _bytes(blobs, "manifest.json"), "", ())]
    index = _document(blobs, "index.json")
    if not isinstance(index, dict):
        raise BrokenArchive("neither a docker-save archive nor an OCI layout: no manifest.json, no index.json")
    images = list(_index_images(blobs, index, depth=0))
    if not images:
        raise BrokenArchive(f"no image for linux/{architecture()} in it")
    return images


def architecture() -> str:
    """This machine's processor, as OCI names it."""
    machine = platform.machine()
    return _ARCHITECTURES.get(machine, machine)


@contextmanager
def decompressed(blob: IO[bytes]) -> Iterator[IO[bytes]]:
    """The plain bytes of a blob that may be compressed with gzip, bzip2, xz or zstd."""
    start = blob.read(6)
    rest = _Rejoined(start, blob)
    if start.startswith(b"\x1f\x8b"):
        with gzip.GzipFile(fileobj=io.BufferedReader(rest, _READ_BYTES)) as plain:
            yield cast(IO[bytes], plain)
    elif start.startswith(b"BZh"):
        with bz2.BZ2File(io.BufferedReader(rest, _READ_BYTES)) as plain:
            yield plain
    elif start.startswith(b"\xfd7zXZ\x00"):
        with lzma.LZMAFile(io.BufferedReader(rest, _READ_BYTES)) as plain:
            yield plain
    elif start.startswith(b"\x28\xb5\x2f\xfd"):
        with _zstd(io.BufferedReader(rest, _READ_BYTES)) as plain:
            yield plain
    else:
        yield io.BufferedReader(rest, _READ_BYTES)


class Hashed(io.RawIOBase):
    """Reads through, and knows the SHA-256 of what was read."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._hash = hashlib.sha256()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._stream.read(len(buffer))
        self._hash.update(data)
        buffer[: len(data)] = data
        return len(data)

    def digest_to_end(self) -> str:
        """Read what is left, then the digest of all of it."""
        while data := self._stream.read(_READ_BYTES):
            self._hash.update(data)
        return f"sha256:{self._hash.hexdigest()}"


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


# -- the three shapes


def _docker_save_image(blobs: Blobs, entry: Any) -> FoundImage:
    try:
        config_name, layers = entry["Config"], tuple(entry["Layers"] or ())
        names = tuple(entry.get("RepoTags") or ())
    except (KeyError, TypeError, AttributeError) as error:
        raise BrokenArchive(f"manifest.json lacks {error}") from error
    return _image(_bytes(blobs, config_name), layers, names)


def _index_images(blobs: Blobs, index: dict[str, Any], depth: int, name: str = "") -> Iterator[FoundImage]:
    if depth > INDEX_DEPTH_MAX:
        raise BrokenArchive("indexes nest too deep")
    for descriptor in _list(index, "manifests"):
        digest = _text(descriptor, "digest")
        annotations = descriptor.get("annotations") or {}
        called = (
            annotations.get("io.containerd.image.name") or annotations.get("org.opencontainers.image.ref.name") or name
        )
        wanted = descriptor.get("platform") or {}
        if wanted and (wanted.get("os"), wanted.get("architecture")) != ("linux", architecture()):
            continue
        data = _verified(blobs, digest)
        document = _decode(data, digest)
        if not isinstance(document, dict):
            raise BrokenArchive(f"{digest} is no manifest")
        if "manifests" in document:
            yield from _index_images(blobs, document, depth + 1, called)
        elif "config" in document:
            yield _manifest_image(blobs, document, data, "blobs", (called,) if called else ())


def _manifest_image(
    blobs: Blobs, manifest: dict[str, Any], data: bytes, folder: str, names: tuple[str, ...]
) -> FoundImage:
    if "config" not in manifest:
        raise BrokenArchive("manifest of a schema that is no longer in use (no config)")
    digests = [_text(layer, "digest") for layer in _list(manifest, "layers")]
    place = _blob_name if folder else _hexadecimal
    return _image(
        _verified(blobs, _text(manifest["config"], "digest"), place),
        tuple(place(digest) for digest in digests),
        names,
        digest_of(data),
        {place(digest): digest for digest in digests},
    )


def _image(
    configuration_bytes: bytes,
    layers: tuple[str, ...],
    names: tuple[str, ...],
    manifest_digest: str = "",
    digests: dict[str, str] | None = None,
) -> FoundImage:
    configuration = configuration_of(configuration_bytes)
    if len(layers) != len(configuration.rootfs.diff_ids):
        raise BrokenArchive(f"manifest has {len(layers)} layers, configuration {len(configuration.rootfs.diff_ids)}")
    if len(layers) > LAYERS_MAX:
        raise BrokenArchive(f"image has {len(layers)} layers, more than {LAYERS_MAX}")
    for diff_id in configuration.rootfs.diff_ids:
        _hexadecimal(diff_id)
    return FoundImage(
        digest_of(configuration_bytes),
        configuration,
        configuration_bytes,
        layers,
        names,
        manifest_digest,
        digests or {},
    )


def configuration_of(data: bytes) -> ImageConfiguration:
    try:
        return msgspec.json.decode(data, type=ImageConfiguration)
    except (msgspec.ValidationError, msgspec.DecodeError) as error:
        raise BrokenArchive(f"image configuration: {error}") from error


# -- reading


class _Folder:
    def __init__(self, path: str) -> None:
        self._path = path

    def open(self, name: str) -> IO[bytes]:
        if name.startswith("/") or ".." in name.split("/"):
            raise BrokenArchive(f"{name!r} leads out of the folder")
        return open(os.path.join(self._path, name), "rb")


class _Archive:
    def __init__(self, archive: tarfile.TarFile) -> None:
        self._archive = archive
        self._names = {member.name.removeprefix("./"): member for member in archive}

    def open(self, name: str) -> IO[bytes]:
        member = self._names.get(name)
        try:
            content = self._archive.extractfile(member) if member else None
        except (KeyError, tarfile.TarError, RecursionError) as error:
            raise BrokenArchive(f"{name}: {error}") from error
        if content is None:
            raise FileNotFoundError(f"{name} is not in the archive")
        return content


class _Rejoined(io.RawIOBase):
    """A stream whose first bytes were read already."""

    def __init__(self, start: bytes, rest: IO[bytes]) -> None:
        self._start = start
        self._rest = rest

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if self._start:
            data, self._start = self._start[: len(buffer)], self._start[len(buffer) :]
        else:
            data = self._rest.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


@contextmanager
def _zstd(blob: IO[bytes]) -> Iterator[IO[bytes]]:
    """Python 3.11 has no zstd; the zstd program has."""
    program = shutil.which("zstd")
    if program is None:
        raise BrokenArchive("a layer is compressed with zstd, which needs the program `zstd` (apt install zstd)")
    with open(os.memfd_create("zstd-layer"), "w+b") as copy:
        shutil.copyfileobj(blob, copy, _READ_BYTES)
        copy.seek(0)
        with subprocess.Popen([program, "-dcq"], stdin=copy, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            try:
                yield process.stdout
            finally:
                process.kill()


def _as_tar(file: IO[bytes], path: str) -> tarfile.TarFile:
    try:
        return tarfile.open(fileobj=file, mode="r:")
    except tarfile.TarError as error:
        raise BrokenArchive(f"{path}: {error}") from error


def _is_compressed(start: bytes) -> bool:
    return start.startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ\x00", b"\x28\xb5\x2f\xfd"))


def _document(blobs: Blobs, name: str) -> Any:
    try:
        return _decode(_bytes(blobs, name), name)
    except FileNotFoundError:
        return None


def _bytes(blobs: Blobs, name: str) -> bytes:
    with blobs.open(name) as file:
        data = file.read(DOCUMENT_BYTES_MAX + 1)
    if len(data) > DOCUMENT_BYTES_MAX:
        raise BrokenArchive(f"{name} is larger than {DOCUMENT_BYTES_MAX} bytes")
    return data


def _verified(blobs: Blobs, digest: str, place: Any = None) -> bytes:
    data = _bytes(blobs, (place or _blob_name)(digest))
    if digest_of(data) != digest:
        raise BrokenArchive(f"{digest} is damaged: its content has another digest")
    return data


def _decode(data: bytes, name: str) -> Any:
    try:
        return msgspec.json.decode(data)
    except msgspec.DecodeError as error:
        raise BrokenArchive(f"{name}: {error}") from error


def _blob_name(digest: str) -> str:
    return f"blobs/sha256/{_hexadecimal(digest)}"


def _hexadecimal(digest: str) -> str:
    kind, _, value = digest.partition(":")
    if kind != "sha256" or len(value) != 64 or not set(value) <= set("0123456789abcdef"):
        raise BrokenArchive(f"{digest!r} is no sha256 digest")
    return value


def _list(document: dict[str, Any], key: str) -> list[dict[str, Any]]:
    value = document.get(key) or []
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise BrokenArchive(f"{key} is no list of descriptors")
    return value


def _text(document: Any, key: str) -> str:
    value = document.get(key) if isinstance(document, dict) else None
    if not isinstance(value, str):
        raise BrokenArchive(f"{key} is missing")
    return value
