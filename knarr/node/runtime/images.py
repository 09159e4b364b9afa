"""The images of a node: fetched once, unpacked once, shared by all containers.

On disk, below one folder:

    index.json            which images there are, under which names, of which layers
    configurations/<id>   what each image id is the digest of
    layers/<chain id>/    one unpacked layer upon given others, a lower layer for overlayfs
    scratch/              what is being fetched or unpacked; emptied at start

A layer is complete before it is renamed to its place, and an image is in the index only after its layers are
on disk: a crash at any moment leaves images wholly there or absent.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import io
import json
import lzma
import os
import shutil
import tarfile
import tempfile
import threading
import zlib
from collections.abc import Callable, Iterable
from typing import cast

import msgspec

from knarr.clock import Clock
from knarr.node.runtime import archives, files, kernel, references
from knarr.node.runtime.contract import Credentials, Image, ImageNotPresent, PullFailure, RuntimeFailure
from knarr.node.runtime.layers import unpack
from knarr.node.runtime.references import Reference

PULL_S_MAX = 3600.0
"""A registry that has not delivered by then never will; the agent tries again later."""
PULLS_AT_ONCE_MAX = 4
"""Pulls share the node's network; more only make each slower."""
PULL_MESSAGE_LENGTH_MAX = 1024
"""Of skopeo's last words, kept for the event that the user reads."""
UNPACKS_AT_ONCE_MAX = 2
"""Unpacking is disk and processor work; the pods that already run need both as well."""


_DAMAGE = (OSError, ValueError, EOFError, zlib.error, lzma.LZMAError, tarfile.TarError)
"""All that reading a stranger's archive may raise: BrokenArchive and UnsafeLayer are ValueErrors."""


_PullKey = tuple[str, bool | None, Credentials | None]


class StoredImage(msgspec.Struct, frozen=True):
    """One image in the index."""

    id: str
    chain: tuple[str, ...]
    """Layers, lowest first."""
    size_bytes: int
    names: tuple[str, ...] = ()
    """Normalised name:tag."""
    digests: tuple[str, ...] = ()
    """Normalised name@digest."""
    user: str = ""


class _Index(msgspec.Struct):
    images: dict[str, StoredImage] = {}


class ImageStore:
    """Images below `root`. `skopeo` is the program that talks to registries."""

    def __init__(self, root: str, clock: Clock, skopeo: str = "skopeo") -> None:
        self._root = root
        self._clock = clock
        self._skopeo = skopeo
        self._images: dict[str, StoredImage] = {}
        self._configurations: dict[str, archives.ImageConfiguration] = {}
        self._pulls: dict[_PullKey, asyncio.Task[str]] = {}
        self._pull_slots = asyncio.Semaphore(PULLS_AT_ONCE_MAX)
        self._unpack_slots = asyncio.Semaphore(UNPACKS_AT_ONCE_MAX)
        self._unpacking: dict[str, asyncio.Lock] = {}
        self._index_lock = asyncio.Lock()
        self._layers_in_hand: dict[str, int] = {}
        """Layers of images that are being added: not yet in the index, but not garbage."""
        self._layers_lock = threading.Lock()
        """Between the loop, which takes layers in hand, and the thread that removes those that nobody has."""

    async def start(self) -> None:
        """Read the index; throw away what a crash left half done."""
        self._images = await asyncio.to_thread(self._read)

    async def close(self) -> None:
        """Give up pulls under way; nothing of them stays."""
        pulls = list(self._pulls.values())
        for pull in pulls:
            pull.cancel()
        await asyncio.gather(*pulls, return_exceptions=True)

    # -- what there is

    def all(self) -> list[StoredImage]:
        return list(self._images.values())

    def find(self, text: str) -> StoredImage | None:
        """The image that a name, a name with digest, or an id names."""
        identity = references.image_id(text)
        if identity is not None:
            return self._images.get(identity)
        reference = str(references.parse(text))
        for image in self._images.values():
            if reference in image.names or reference in image.digests:
                return image
        return None

    async def configuration(self, image: StoredImage) -> archives.ImageConfiguration:
        """How to run it."""
        if image.id not in self._configurations:
            path = self._configuration_path(image.id)
            data = await asyncio.to_thread(files.read, path)
            if data is None:
                raise ImageNotPresent(image.id)
            self._configurations[image.id] = archives.configuration_of(data)
        return self._configurations[image.id]

    def layer_paths(self, chain: Iterable[str]) -> list[str]:
        """The folders of a chain of layers, lowest first."""
        return [self._layer_path(chain_id) for chain_id in chain]

    # -- adding

    async def load(self, path: str) -> list[str]:
        """Take every image out of an archive; answers their names, or ids where they have none."""
        scratch = await asyncio.to_thread(tempfile.mkdtemp, dir=self._path("scratch"))
        try:
            return await self._take(path, scratch, ())
        except OSError as error:
            raise RuntimeFailure("LoadImageError", f"{path}: {error.strerror or error}") from error
        except _DAMAGE as error:
            raise RuntimeFailure("LoadImageError", f"{path}: {error}") from error
        finally:
            await asyncio.to_thread(shutil.rmtree, scratch, True)

    async def pull(self, text: str, insecure: bool | None, credentials: Credentials | None = None) -> str:
        """Fetch from the registry; who wants the same image in the same name meanwhile waits for the same pull."""
        reference = references.parse(text)
        key = (str(reference), insecure, credentials)
        pull = self._pulls.get(key)
        if pull is None:
            pull = self._pulls[key] = asyncio.create_task(
                self._pull(reference, insecure, credentials), name=f"pull {text}"
            )
            pull.add_done_callback(lambda done: self._pull_ended(key, done))
        # A waiter that goes away (its pod was deleted) does not end the pull of the others.
        return await asyncio.shield(pull)

    def _pull_ended(self, key: _PullKey, pull: asyncio.Task[str]) -> None:
        self._pulls.pop(key, None)
        if not pull.cancelled():
            pull.exception()  # each waiter has got it; none may be left

    async def _pull(self, reference: Reference, insecure: bool | None, credentials: Credentials | None) -> str:
        async with self._pull_slots:
            scratch = await asyncio.to_thread(tempfile.mkdtemp, dir=self._path("scratch"))
            try:
                fetched = os.path.join(scratch, "image")
                shown = os.path.join(scratch, "auth.json")
                if credentials is not None:
                    await asyncio.to_thread(_write_credentials, shown, reference, credentials)
                await self._fetch(reference, insecure, fetched, shown if credentials is not None else "")
                names = await self._take(fetched, scratch, (str(reference),))
            except _DAMAGE as error:
                raise PullFailure("ErrImagePull", f'failed to unpack image "{reference}": {error}') from error
            finally:
                await asyncio.to_thread(shutil.rmtree, scratch, True)
        image = self.find(names[0])
        if image is None:
            raise PullFailure("ErrImagePull", f'image "{reference}" was removed while it was pulled')
        return image.id

    async def _fetch(self, reference: Reference, insecure: bool | None, target: str, credentials: str) -> None:
        """`credentials`: the file that has them, never the command line, which everybody sees."""
        arguments = ["--insecure-policy", "copy", "--quiet", "--remove-signatures"]
        if credentials:
            arguments.append(f"--src-authfile={credentials}")
        if insecure if insecure is not None else reference.registry_is_loopback:
            arguments.append("--src-tls-verify=false")
        try:
            process = await asyncio.create_subprocess_exec(
                self._skopeo,
                *arguments,
                f"docker://{reference}",
                f"dir:{target}",
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.PIPE,
                start_new_session=True,
            )
        except FileNotFoundError as error:
            raise PullFailure(
                "ErrImagePull",
                f'failed to pull image "{reference}": the program `{self._skopeo}` is not installed',
            ) from error
        try:
            async with self._clock.timeout(PULL_S_MAX):
                _, said = await process.communicate()
        except TimeoutError as error:
            raise PullFailure(
                "ErrImagePull", f'failed to pull image "{reference}": no end after {PULL_S_MAX:.0f} s'
            ) from error
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        if process.returncode:
            raise PullFailure("ErrImagePull", f'failed to pull image "{reference}": {pull_error(said)}')

    async def _take(self, path: str, scratch: str, extra_names: tuple[str, ...]) -> list[str]:
        """Unpack every image found at `path` and enter it in the index."""
        with contextlib.ExitStack() as stack:
            blobs = await asyncio.to_thread(stack.enter_context, archives.opened(path, scratch))
            found = await asyncio.to_thread(archives.find_images, blobs)
            answer: list[str] = []
            for image in found:
                names = tuple(str(references.parse(name)) for name in image.names) + extra_names
                await self._add(blobs, image, names)
                answer.extend(names or (image.id,))
        return answer

    async def _add(self, blobs: archives.Blobs, found: archives.FoundImage, names: tuple[str, ...]) -> None:
        chain = chain_ids(found.configuration.rootfs.diff_ids)
        with self._layers_lock:
            for chain_id in chain:
                self._layers_in_hand[chain_id] = self._layers_in_hand.get(chain_id, 0) + 1
        try:
            size = len(found.configuration_bytes)
            for index, chain_id in enumerate(chain):
                # Two images that share a layer may arrive together: one unpacks it, the other waits.
                async with self._unpacking.setdefault(chain_id, asyncio.Lock()), self._unpack_slots:
                    await asyncio.to_thread(self._unpack, blobs, found, chain, index)
                size += await asyncio.to_thread(self._layer_size, chain_id)
            digests: tuple[str, ...] = ()
            if found.manifest_digest:
                digests = tuple(
                    dict.fromkeys(f"{references.parse(name).name}@{found.manifest_digest}" for name in names)
                )
            by_digest = tuple(name for name in names if "@" in name)
            settings = found.configuration.config or archives.ImageSettings()
            await self._enter(
                found,
                StoredImage(
                    found.id,
                    chain,
                    size,
                    tuple(name for name in names if "@" not in name),
                    tuple(dict.fromkeys(digests + by_digest)),
                    settings.user or "",
                ),
            )
        finally:
            for chain_id in chain:
                self._layers_in_hand[chain_id] -= 1
                if not self._layers_in_hand[chain_id]:
                    del self._layers_in_hand[chain_id]
                    self._unpacking.pop(chain_id, None)

    async def _enter(self, found: archives.FoundImage, image: StoredImage) -> None:
        async with self._index_lock:
            images = {}
            for identity, other in self._images.items():
                # A name means one image: the newest that got it.
                images[identity] = msgspec.structs.replace(
                    other, names=tuple(name for name in other.names if name not in image.names)
                )
            before = images.get(image.id)
            if before is not None:
                image = msgspec.structs.replace(
                    image,
                    names=tuple(dict.fromkeys(before.names + image.names)),
                    digests=tuple(dict.fromkeys(before.digests + image.digests)),
                )
            images[image.id] = image
            await asyncio.to_thread(self._publish, found, images)
            self._images = images
            self._configurations[image.id] = found.configuration

    # -- removing

    async def remove(self, text: str, chains_in_use: Callable[[], Iterable[tuple[str, ...]]]) -> None:
        """Forget an image; its layers go when neither another image nor a container needs them."""
        image = self.find(text)
        if image is None:
            return
        async with self._index_lock:
            images = {identity: other for identity, other in self._images.items() if identity != image.id}
            await asyncio.to_thread(self._write_index, images)
            self._images = images
            self._configurations.pop(image.id, None)
            await asyncio.to_thread(files.remove, self._configuration_path(image.id))
            await self.sweep(chains_in_use)

    async def sweep(self, chains_in_use: Callable[[], Iterable[tuple[str, ...]]]) -> None:
        """Remove the layers that nothing needs."""
        needed = {chain_id for image in self._images.values() for chain_id in image.chain}
        needed.update(chain_id for chain in chains_in_use() for chain_id in chain)
        await asyncio.to_thread(self._remove_layers_but, needed)

    # -- in threads

    def _read(self) -> dict[str, StoredImage]:
        for folder in ("configurations", "layers", "scratch"):
            os.makedirs(self._path(folder), mode=0o700, exist_ok=True)
        for left in os.scandir(self._path("scratch")):
            shutil.rmtree(left.path, ignore_errors=True)
        data = files.read(self._path("index.json"))
        if data is None:
            return {}
        index = msgspec.json.decode(data, type=_Index)
        return {
            identity: image
            for identity, image in index.images.items()
            if all(os.path.isdir(path) for path in self.layer_paths(image.chain))
        }

    def _unpack(self, blobs: archives.Blobs, found: archives.FoundImage, chain: tuple[str, ...], index: int) -> None:
        target = self._layer_path(chain[index])
        if os.path.isdir(target):
            return
        lower = list(reversed(self.layer_paths(chain[:index])))
        name, diff_id = found.layers[index], found.configuration.rootfs.diff_ids[index]
        staging = tempfile.mkdtemp(dir=self._path("scratch"))
        try:
            with blobs.open(name) as blob, archives.decompressed(blob) as plain:
                hashed = archives.Hashed(plain)
                size = unpack(cast("io.BufferedReader", io.BufferedReader(hashed, 1 << 20)), staging, lower)
                if hashed.digest_to_end() != diff_id:
                    raise archives.BrokenArchive(f"layer {name} is damaged: its content is not {diff_id}")
            files.write(f"{target}.size", str(size).encode())
            kernel.sync_file_system(staging)
            os.rename(staging, target)
        except BaseException:
            shutil.rmtree(staging, ignore_errors=True)
            raise

    def _layer_size(self, chain_id: str) -> int:
        return int(files.read(f"{self._layer_path(chain_id)}.size") or b"0")

    def _publish(self, found: archives.FoundImage, images: dict[str, StoredImage]) -> None:
        files.write(self._configuration_path(found.id), found.configuration_bytes, durable=True)
        self._write_index(images)

    def _write_index(self, images: dict[str, StoredImage]) -> None:
        files.write(self._path("index.json"), msgspec.json.encode(_Index(images)), durable=True)

    def _remove_layers_but(self, keep: set[str]) -> None:
        for entry in os.scandir(self._path("layers")):
            chain_id = f"sha256:{entry.name}"
            if not entry.is_dir() or chain_id in keep:
                continue
            # Renamed first: a half-removed layer must never be taken for a whole one.
            doomed = tempfile.mkdtemp(dir=self._path("scratch"))
            with self._layers_lock:
                if chain_id not in self._layers_in_hand:
                    os.rename(entry.path, os.path.join(doomed, "layer"))
                    files.remove(f"{entry.path}.size")
            shutil.rmtree(doomed, ignore_errors=True)

    def _path(self, *parts: str) -> str:
        return os.path.join(self._root, *parts)

    def _layer_path(self, chain_id: str) -> str:
        return self._path("layers", chain_id.removeprefix("sha256:"))

    def _configuration_path(self, identity: str) -> str:
        return self._path("configurations", identity.removeprefix("sha256:"))


def _write_credentials(path: str, reference: Reference, credentials: Credentials) -> None:
    """As Docker's configuration has them, for its owner alone."""
    text = base64.b64encode(f"{credentials.username}:{credentials.password}".encode()).decode()
    entry = {"auth": text} | ({"identitytoken": credentials.identity_token} if credentials.identity_token else {})
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        json.dump({"auths": {reference.domain: entry}}, file)


def chain_ids(diff_ids: tuple[str, ...]) -> tuple[str, ...]:
    """The identity of each layer together with all below it (OCI image-spec, config.md, "Layer ChainID")."""
    chain: list[str] = []
    for diff_id in diff_ids:
        if chain:
            chain.append(f"sha256:{hashlib.sha256(f'{chain[-1]} {diff_id}'.encode()).hexdigest()}")
        else:
            chain.append(diff_id)
    return tuple(chain)


def as_image(image: StoredImage) -> Image:
    """As the agent sees it."""
    return Image(image.id, image.names, image.digests, image.size_bytes, image.user)


def pull_error(said: bytes) -> str:
    """The cause in skopeo's log line `time="…" level=fatal msg="…"`."""
    text = said.decode("utf-8", "replace").strip()
    last = text.splitlines()[-1] if text else "skopeo said nothing"
    _, found, message = last.partition('msg="')
    if found:
        message = message.removesuffix('"').replace('\\"', '"')
    return (message or last)[:PULL_MESSAGE_LENGTH_MAX]
