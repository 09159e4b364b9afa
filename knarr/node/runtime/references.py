"""Names of images, as users write them and as they are meant.

`busybox` means `docker.io/library/busybox:latest`. The grammar and the defaults are those of the
distribution project's reference package, which Docker and every CRI runtime share.
"""

from __future__ import annotations

import ipaddress
import re

from msgspec import Struct

from knarr.node.runtime.contract import PullFailure

REFERENCE_LENGTH_MAX = 4096
"""Longer than any registry accepts; keeps the pattern's work bounded."""
NAME_LENGTH_MAX = 255
"""The distribution specification's limit for a repository's name."""

_DOMAIN_LABEL = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_DOMAIN = rf"(?:{_DOMAIN_LABEL}(?:\.{_DOMAIN_LABEL})*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?"
_PATH_COMPONENT = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
_NAME = re.compile(rf"(?:(?P<domain>{_DOMAIN})/)?(?P<path>{_PATH_COMPONENT}(?:/{_PATH_COMPONENT})*)")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_DIGEST = re.compile(r"(?:sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128})")
_IMAGE_ID = re.compile(r"(?:sha256:)?([0-9a-f]{64})")


class InvalidReference(PullFailure):
    """The text is no image name."""

    def __init__(self, text: str, why: str) -> None:
        super().__init__(
            "InvalidImageName",
            f'Failed to apply default image tag "{text[:NAME_LENGTH_MAX]}": '
            f'couldn\'t parse image name "{text[:NAME_LENGTH_MAX]}": {why}',
        )


class Reference(Struct, frozen=True):
    """An image name in full: every default filled in."""

    domain: str
    path: str
    tag: str
    """Empty when only a digest was named."""
    digest: str
    """Empty when only a tag was named."""

    @property
    def name(self) -> str:
        return f"{self.domain}/{self.path}"

    @property
    def registry_is_loopback(self) -> bool:
        """A registry on this machine: plain HTTP is fine there, as in Docker."""
        host = self.domain
        if host.startswith("["):
            host = host[1:].partition("]")[0]
        elif ":" in host:
            host = host.partition(":")[0]
        if host == "localhost":
            return True
        try:
            return ipaddress.ip_address(host).is_loopback
        except ValueError:
            return False

    def __str__(self) -> str:
        """What identifies the image: a digest outweighs the tag beside it."""
        return f"{self.name}@{self.digest}" if self.digest else f"{self.name}:{self.tag}"


def parse(text: str) -> Reference:
    """The reference that `text` means; InvalidReference when it means none."""
    if not text or len(text) > REFERENCE_LENGTH_MAX:
        raise InvalidReference(text, "invalid reference format")
    rest, at, digest = text.partition("@")
    if at and not _DIGEST.fullmatch(digest):
        raise InvalidReference(text, "invalid reference format")
    name, tag = rest, ""
    slash, colon = rest.rfind("/"), rest.rfind(":")
    if colon > slash:
        name, tag = rest[:colon], rest[colon + 1 :]
        if not _TAG.fullmatch(tag):
            raise InvalidReference(text, "invalid reference format")
    if re.fullmatch(r"[0-9a-f]{64}", name):
        raise InvalidReference(text, "invalid repository name, cannot specify 64-byte hexadecimal strings")
    domain, path = _split_domain(name)
    if path != path.lower():
        raise InvalidReference(text, "repository name must be lowercase")
    if not _NAME.fullmatch(f"{domain}/{path}"):
        raise InvalidReference(text, "invalid reference format")
    if len(path) > NAME_LENGTH_MAX:
        raise InvalidReference(text, f"repository name must not be more than {NAME_LENGTH_MAX} characters")
    if not tag and not digest:
        tag = "latest"
    return Reference(domain, path, tag, digest)


def image_id(text: str) -> str | None:
    """The image id that `text` is, with its `sha256:`, or None when it is a name."""
    match = _IMAGE_ID.fullmatch(text)
    return f"sha256:{match[1]}" if match else None


def _split_domain(name: str) -> tuple[str, str]:
    """The first component is a registry when it has a dot, a port, a capital, or is localhost."""
    first, slash, rest = name.partition("/")
    is_domain = bool(slash) and ("." in first or ":" in first or first == "localhost" or first.lower() != first)
    domain, path = (first, rest) if is_domain else ("docker.io", name)
    if domain == "index.docker.io":
        domain = "docker.io"
    if domain == "docker.io" and "/" not in path:
        path = f"library/{path}"
    return domain, path
