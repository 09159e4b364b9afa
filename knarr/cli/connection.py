"""The command line's own way to the API server: one request at a time, over HTTPS, as the kubeconfig says.

Commands speak plain JSON and find paths by discovery, so they work for every kind that the server has, custom ones
included. Components never use this; they have `knarr.client`.
"""

from __future__ import annotations

import http.client
import json
import ssl
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from msgspec import Struct

from knarr.cli.kubeconfig import Access, KubeconfigError

ANSWER_TIMEOUT_S = 60.0


class ApiFailure(Exception):
    """The server refused; `code` is the HTTP status, `reason` the Status object's."""

    def __init__(self, code: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason


class Kind(Struct, frozen=True):
    """Where the objects of a kind live."""

    prefix: str
    """/api/v1 or /apis/<group>/<version>."""
    plural: str
    namespaced: bool

    def path(self, namespace: str, name: str = "") -> str:
        scope = f"/namespaces/{quote(namespace, safe='')}" if self.namespaced else ""
        return f"{self.prefix}{scope}/{self.plural}" + (f"/{quote(name, safe='')}" if name else "")


class Connection:
    """A session with the server."""

    def __init__(self, access: Access) -> None:
        self.access = access
        self._context = tls(access)
        server = urlsplit(access.server)
        self._host, self._port = server.hostname or "localhost", server.port or 443
        self._open: http.client.HTTPSConnection | None = None
        self._kinds: dict[str, dict[str, Kind]] = {}

    def get(self, path: str, **query: str) -> Any:
        return self.send("GET", path, query=query)

    def send(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        content_type: str = "application/json",
        query: dict[str, str] | None = None,
    ) -> Any:
        """Answers decoded JSON. Raises ApiFailure, OSError."""
        target = path + (f"?{urlencode(query)}" if query else "")
        encoded = json.dumps(body).encode() if body is not None else None
        headers = {"accept": "application/json"} | ({"content-type": content_type} if encoded else {})
        try:
            status, answer = self._exchange(method, target, encoded, headers)
        except (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError):
            self.close()  # a kept connection that the server has closed meanwhile: once more on a new one
            status, answer = self._exchange(method, target, encoded, headers)
        if status >= 300:
            raise _failure(status, answer)
        return json.loads(answer)

    def watch(self, path: str, **query: str) -> Iterator[dict[str, Any]]:
        """Events, until the server ends the stream; on a connection of its own."""
        connection = self._connect()
        try:
            connection.request("GET", f"{path}?{urlencode({**query, 'watch': 'true'})}")
            answer = connection.getresponse()
            if answer.status != 200:
                raise _failure(answer.status, answer.read())
            while line := answer.readline():
                yield json.loads(line)
        finally:
            connection.close()

    def kind(self, api_version: str, kind: str) -> Kind:
        """Where objects of `kind` live, by discovery. Raises ApiFailure where the server does not know it."""
        if api_version not in self._kinds:
            prefix = f"/apis/{api_version}" if "/" in api_version else f"/api/{api_version}"
            self._kinds[api_version] = {
                each["kind"]: Kind(prefix, each["name"], each["namespaced"])
                for each in self.get(prefix)["resources"]
                if "/" not in each["name"]
            }
        try:
            return self._kinds[api_version][kind]
        except KeyError:
            raise ApiFailure(404, "NotFound", f"the server knows no kind {kind} in {api_version}") from None

    def close(self) -> None:
        if self._open is not None:
            self._open.close()
        self._open = None

    def _exchange(self, method: str, target: str, body: bytes | None, headers: dict[str, str]) -> tuple[int, bytes]:
        if self._open is None:
            self._open = self._connect()
        self._open.request(method, target, body, headers)
        answer = self._open.getresponse()
        return answer.status, answer.read()

    def _connect(self) -> http.client.HTTPSConnection:
        """Raises OSError, with the server as its file."""
        made = http.client.HTTPSConnection(self._host, self._port, context=self._context, timeout=ANSWER_TIMEOUT_S)
        try:
            made.connect()
        except OSError as error:
            raise OSError(error.errno, error.strerror or str(error), self.access.server) from None
        return made


def _failure(status: int, answer: bytes) -> ApiFailure:
    try:
        told = json.loads(answer)
        return ApiFailure(status, told.get("reason", ""), told.get("message", ""))
    except (ValueError, AttributeError):
        return ApiFailure(status, "", answer.decode(errors="replace")[:1000])


def tls(access: Access) -> ssl.SSLContext:
    """Trust the cluster's authority alone, and show the certificate if there is one. Raises KubeconfigError."""
    try:
        context = ssl.create_default_context(cadata=access.ca_pem.decode())
        if access.certificate_pem:
            with _file(access.certificate_pem + b"\n" + access.key_pem) as path:
                context.load_cert_chain(path)
    except (ssl.SSLError, UnicodeDecodeError) as error:
        raise KubeconfigError(f"the kubeconfig's certificates can't be used: {error}") from None
    return context


@contextmanager
def _file(content: bytes) -> Iterator[str]:
    """A private file for the time that OpenSSL takes to read it: it takes keys from nowhere else."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(content)
        file.flush()
        yield file.name
