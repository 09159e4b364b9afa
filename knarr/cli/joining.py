"""How a machine comes to trust a cluster, and the cluster it: the way of `kubeadm join`.

whom to trust   kube-public/cluster-info is read without knowing anybody; it counts only when the key of the
                authority in it has one of the hashes that were given (--discovery-token-ca-cert-hash)
who asks        a bootstrap token, or a kubeconfig: good for one thing, to ask for a certificate of the node's own
afterwards      <data-dir>/pki holds the authority's certificate and the node's; nothing else is needed any more
"""

from __future__ import annotations

import base64
import hashlib
import re
import ssl
from pathlib import Path
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from msgspec import Struct

from knarr.api.core.cluster_info import PUBLIC
from knarr.api.core.v1 import ConfigMap
from knarr.api.errors import APIError
from knarr.api.registry import with_metrics
from knarr.cli import kubeconfig
from knarr.cli.connection import tls
from knarr.client.client import Client
from knarr.client.https import HTTPSTransport, client_context
from knarr.node.certificates import CLIENT, NodeCertificates

HASH_FORM = re.compile(r"sha256:[0-9a-fA-F]{64}")
TOKEN_FORM = re.compile(r"[a-z0-9]{6}\.[a-z0-9]{16}")


class JoinRefused(Exception):
    """The cluster can't be trusted, or does not trust us; the message says why."""


class Invitation(Struct, frozen=True):
    """By what a machine joins; all empty when it has joined before."""

    server: str = ""
    token: str = ""
    ca_hashes: tuple[str, ...] = ()
    kubeconfig: str = ""


def hash_of(ca_pem: bytes) -> str:
    """kubeadm's pin of an authority: the hash of its public key."""
    key = x509.load_pem_x509_certificate(ca_pem).public_key()
    der = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return f"sha256:{hashlib.sha256(der).hexdigest()}"


class Membership:
    """This machine's part in a cluster, as <data-dir>/pki keeps it."""

    def __init__(self, data: Path, certificates: NodeCertificates) -> None:
        self.certificates = certificates
        self._folder = data / "pki"
        self.ca_path = self._folder / "ca.crt"

    @property
    def is_member(self) -> bool:
        return self.ca_path.exists() and self.certificates.is_there(CLIENT)

    async def join(self, invitation: Invitation) -> None:
        """Get what is missing. Raises JoinRefused, KubeconfigError, APIError."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        token = invitation.token
        if invitation.kubeconfig:
            access = kubeconfig.read(Path(invitation.kubeconfig))
            context, token = tls(access), access.token
            self._trust(access.ca_pem)
        else:
            # Whom an attempt before has trusted counts only where nobody is named now.
            if invitation.ca_hashes or not self.ca_path.exists():
                self._trust(await _discovered(invitation))
            context = client_context(str(self.ca_path))
        transport = HTTPSTransport(invitation.server, context, token)
        try:
            await self.certificates.ensure(CLIENT, Client(transport, with_metrics()))
        finally:
            await transport.close()

    def context(self) -> ssl.SSLContext:
        """For connections to the API server as this node."""
        certificate, key = self.certificates.paths(CLIENT)
        return client_context(str(self.ca_path), str(certificate), str(key))

    def _trust(self, ca_pem: bytes) -> None:
        temporary = self.ca_path.with_suffix(".new")
        temporary.write_bytes(ca_pem)
        temporary.replace(self.ca_path)


async def _discovered(invitation: Invitation) -> bytes:
    """The authority's certificate, from a server that nobody vouches for yet."""
    anybody = ssl.create_default_context()
    anybody.check_hostname = False
    anybody.verify_mode = ssl.CERT_NONE
    transport = HTTPSTransport(invitation.server, anybody)
    namespace, name = PUBLIC
    try:
        found = await Client(transport, with_metrics()).get(ConfigMap, name, namespace)
    except APIError as error:
        raise JoinRefused(f"{invitation.server} does not tell of its cluster: {error}") from error
    finally:
        await transport.close()
    ca_pem = _authority(found.data.get("kubeconfig", ""))
    held = hash_of(ca_pem)
    if held not in {each.lower() for each in invitation.ca_hashes}:
        raise JoinRefused(
            f"the authority of {invitation.server} has the hash {held}, which is none of those given: "
            "it is another cluster, or somebody is in between"
        )
    return ca_pem


def _authority(text: str) -> bytes:
    import yaml

    try:
        (cluster,) = yaml.safe_load(text)["clusters"]
        ca_pem = base64.b64decode(cluster["cluster"]["certificate-authority-data"], validate=True)
        x509.load_pem_x509_certificate(ca_pem)
    except (yaml.YAMLError, ValueError, KeyError, TypeError) as error:
        raise JoinRefused(f"what {'/'.join(PUBLIC)} says can't be read: {error}") from error
    return ca_pem


def problem_of(invitation: Invitation) -> str | None:
    """What is wrong with how somebody wants to join."""
    if invitation.kubeconfig:
        return "--token and --kubeconfig are two ways to join: give one" if invitation.token else None
    if not invitation.server:
        return "--server is needed (`knarr token create`, where the cluster runs, prints the whole command)"
    if urlsplit(invitation.server).scheme != "https" or not urlsplit(invitation.server).hostname:
        return f"--server: must be https://address:port, not {invitation.server!r}"
    if TOKEN_FORM.fullmatch(invitation.token) is None:
        return "--token: must be of the form abcdef.0123456789abcdef"
    if not invitation.ca_hashes:
        return "--discovery-token-ca-cert-hash is needed: without it nobody knows whether the server is the right one"
    for each in invitation.ca_hashes:
        if HASH_FORM.fullmatch(each) is None:
            return f"--discovery-token-ca-cert-hash: must be sha256: and 64 hexadecimal digits, not {each!r}"
    return None
