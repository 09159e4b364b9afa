"""A small OpenID Connect issuer over TLS: its discovery document, its keys, and tokens signed with them."""

from __future__ import annotations

import datetime
import json
import ssl
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import jwt
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID


class TestIssuer:
    """`url` and `authority` (PEM) are for the configuration of who trusts it."""

    __test__ = False

    def __init__(self) -> None:
        self.keys: dict[str, Any] = {}
        self.asked: list[str] = []
        self.named = ""
        """The issuer in the discovery document; its URL unless a test lies."""
        self.add_key("one")

    def add_key(self, key_id: str) -> None:
        self.keys[key_id] = rsa.generate_private_key(public_exponent=65537, key_size=2048)

    def token(self, key_id: str = "one", algorithm: str = "RS256", key: Any = None, **claims: Any) -> str:
        now_s = int(datetime.datetime.now(datetime.UTC).timestamp())
        whole = {"iss": self.url, "aud": "cluster", "sub": "ann", "exp": now_s + 600, "iat": now_s} | claims
        whole = {name: value for name, value in whole.items() if value is not None}
        return jwt.encode(whole, key or self.keys[key_id], algorithm=algorithm, headers={"kid": key_id})

    async def _discovery(self, request: web.Request) -> web.Response:
        self.asked.append("discovery")
        return web.json_response({"issuer": self.named or self.url, "jwks_uri": f"{self.url}/keys"})

    async def _keys(self, request: web.Request) -> web.Response:
        self.asked.append("keys")
        algorithm = jwt.algorithms.RSAAlgorithm
        listed = [
            json.loads(algorithm.to_jwk(key.public_key())) | {"kid": key_id, "use": "sig", "alg": "RS256"}
            for key_id, key in self.keys.items()
        ]
        return web.json_response({"keys": [*listed, {"kty": "unknown", "kid": "odd"}]})

    @asynccontextmanager
    async def served(self) -> AsyncIterator[TestIssuer]:
        app = web.Application()
        app.router.add_get("/.well-known/openid-configuration", self._discovery)
        app.router.add_get("/keys", self._keys)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        with tempfile.TemporaryDirectory() as folder:
            self.authority, context = _certificate(Path(folder))
            site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
            await site.start()
            port = runner.addresses[0][1]
            self.url = f"https://localhost:{port}"
            try:
                yield self
            finally:
                await runner.cleanup()


def _certificate(folder: Path) -> tuple[str, ssl.SSLContext]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "both.pem").write_bytes(pem + private)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "both.pem")
    return pem.decode(), context
