"""What the annotations of an Ingress ask for: ingress-nginx's most used ones, read as its users expect.

Each may be written `nginx.ingress.kubernetes.io/<name>` or `knarr.dev/<name>`; of both, knarr.dev's counts.
docs/ingress.md has the table. Four things can be wrong, and what follows differs:

* a snippet would inject configuration: the whole Ingress is refused;
* it asks for a protection that isn't there, or sources that can't be read: its paths answer 503, never unprotected;
* a value can't be read: that annotation counts as absent;
* a name isn't known: it is told once, and the Ingress is served.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

from msgspec import Struct
from msgspec.structs import replace

from knarr.edge.ingress.model import Canary, Cookie, Cors, Options, Protocol, Redirect
from knarr.edge.ingress.regex import fault_of

OURS, NGINX = "knarr.dev/", "nginx.ingress.kubernetes.io/"
SNIPPET = "snippet"
CLOSING = (
    "auth-secret",
    "auth-signin",
    "auth-tls-secret",
    "auth-tls-verify-client",
    "auth-type",
    "auth-url",
    "enable-modsecurity",
    "enable-owasp-core-rules",
    "limit-connections",
    "proxy-ssl-verify",
    "satisfy",
)
"""Protections that we don't have."""
VARIABLES = ("$request_uri", "$host", "$scheme")
"""Of nginx, in the target of a redirect."""
SECONDS_MAX = 86_400 * 365
WEIGHT_MAX = 1_000_000
RANGES_MAX = 1000
SIZE = re.compile(r"([0-9]{1,12})([kKmMgG]?)")
HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,128}")
HEADER_TEXT = re.compile(r"[\x20-\x7e]{0,2048}")
ORIGIN = re.compile(r"\*|[a-z][a-z0-9+.-]*://[A-Za-z0-9*.-]+(:[0-9]{1,5})?")
PATH = re.compile(r"/[^\s\x00-\x1f\x7f]{0,2047}")
HOST = re.compile(r"[A-Za-z0-9.-]{1,253}(:[0-9]{1,5})?")


class Read(Struct, frozen=True):
    options: Options
    problems: tuple[tuple[str, str], ...] = ()
    """Reason and message."""
    refused: bool = False


def read(annotations: Mapping[str, str]) -> Read:
    """The options of an Ingress, and what is wrong with its annotations."""
    given = {name.removeprefix(NGINX): text for name, text in annotations.items() if name.startswith(NGINX)}
    given |= {name.removeprefix(OURS): text for name, text in annotations.items() if name.startswith(OURS)}
    snippets = sorted(name for name in given if name.endswith(SNIPPET) and given[name].strip())
    if snippets:
        message = f"{', '.join(snippets)}: would inject configuration into the proxy; the Ingress is not served"
        return Read(Options(), (("AnnotationRefused", message),), refused=True)
    problems: list[tuple[str, str]] = []
    options = Options()
    closing = sorted(name for name in given if name in CLOSING and given[name].strip() not in ("", "false", "off"))
    if closing:
        options = replace(options, closed=True)
        message = f"{', '.join(closing)}: this protection is not available here; the paths answer 503"
        problems.append(("AnnotationRefused", message))
    for name, reader in READERS.items():
        if name not in given:
            continue
        try:
            options = reader(options, given[name].strip())
        except ValueError as error:
            consequence = "the paths answer 503" if name in SOURCES else "it is ignored"
            problems.append(("AnnotationInvalid", f"{name}: {error}; {consequence}"))
            if name in SOURCES:
                options = replace(options, closed=True)
    if given.get("canary", "").strip() != "true":
        options = replace(options, canary=None)
    if given.get("enable-cors", "").strip() != "true":
        options = replace(options, cors=None)
    if given.get("affinity", "").strip() != "cookie":
        options = replace(options, cookie=None)
    unknown = sorted(name for name in given if name not in READERS and name not in CLOSING and name not in SWITCHES)
    unknown = [name for name in unknown if not name.endswith(SNIPPET)]
    if unknown:
        problems.append(("AnnotationsIgnored", f"not known here, and ignored: {', '.join(unknown)}"))
    return Read(options, tuple(problems))


SWITCHES = ("affinity-mode", "session-cookie-hash")
"""Known, and nothing follows from them here."""
SOURCES = ("whitelist-source-range", "allowlist-source-range", "denylist-source-range")

Reader = Callable[[Options, str], Options]


def _flag(field: str) -> Reader:
    return lambda options, text: replace(options, **{field: _boolean(text)})


def _seconds(field: str) -> Reader:
    def reader(options: Options, text: str) -> Options:
        match = re.fullmatch(r"([0-9]{1,9})(s|m|h)?", text)
        seconds = int(match[1]) * {"s": 1, "m": 60, "h": 3600}[match[2] or "s"] if match else -1
        if not 0 < seconds <= SECONDS_MAX:
            raise ValueError(f"must be a number of seconds above 0, not {text!r}")
        return replace(options, **{field: float(seconds)})

    return reader


def _idle(options: Options, text: str) -> Options:
    """proxy-read-timeout and proxy-send-timeout: the longer one is how long nothing may move."""
    seconds = _seconds("idle_timeout_s")(Options(), text).idle_timeout_s
    longer = max(options.idle_timeout_s, seconds) if options.idle_timeout_s != Options().idle_timeout_s else seconds
    return replace(options, idle_timeout_s=longer)


def _size(options: Options, text: str) -> Options:
    match = SIZE.fullmatch(text)
    if match is None:
        raise ValueError(f"must be a size such as 8m, not {text!r}")
    factor = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}[match[2].lower()]
    return replace(options, body_bytes_max=int(match[1]) * factor)


def _ranges(field: str) -> Reader:
    def reader(options: Options, text: str) -> Options:
        ranges = [str(ipaddress.ip_network(each.strip(), strict=False)) for each in text.split(",") if each.strip()]
        if not 0 < len(ranges) <= RANGES_MAX:
            raise ValueError(f"must be 1 to {RANGES_MAX} address ranges, separated by commas")
        return replace(options, **{field: (*getattr(options, field), *ranges)})

    return reader


def _rewrite(options: Options, text: str) -> Options:
    if not PATH.fullmatch(text):
        raise ValueError(f"must be an absolute path, not {text!r}")
    if re.search(r"\$[^0-9]|\$$", text) or "?" in text:
        raise ValueError(f"may have $1 to $9 in it, but no other variable and no query, not {text!r}")
    return replace(options, rewrite_target=text)


def _redirect(code: int) -> Reader:
    def reader(options: Options, text: str) -> Options:
        plain = text
        for variable in VARIABLES:
            plain = plain.replace(variable, "/")
        target = urlsplit(plain)
        if "$" in plain or not HEADER_TEXT.fullmatch(text) or target.scheme not in ("", "/", "http", "https"):
            raise ValueError(f"must be a URL, with no variable but {', '.join(VARIABLES)}, not {text!r}")
        return replace(options, redirect=Redirect(text, code))

    return reader


def _redirect_code(options: Options, text: str) -> Options:
    """Stands after the redirects in READERS, so there is one already when it is asked for."""
    if not re.fullmatch(r"30[0-8]", text):
        raise ValueError(f"must be 300 to 308, not {text!r}")
    return replace(options, redirect=replace(options.redirect, code=int(text))) if options.redirect else options


def _app_root(options: Options, text: str) -> Options:
    if not PATH.fullmatch(text):
        raise ValueError(f"must be an absolute path, not {text!r}")
    return replace(options, app_root=text)


PROTOCOLS = {
    "HTTP": Protocol.HTTP1,
    "AUTO_HTTP": Protocol.HTTP1,
    "HTTPS": Protocol.HTTPS,
    "GRPC": Protocol.HTTP2,
    "H2C": Protocol.HTTP2,
    "GRPCS": Protocol.GRPCS,
}


def _protocol(options: Options, text: str) -> Options:
    if text.upper() not in PROTOCOLS:
        raise ValueError(f"must be one of {', '.join(PROTOCOLS)}, not {text!r}")
    return replace(options, protocol=PROTOCOLS[text.upper()])


def _cors(field: str, parse: Callable[[str], Any]) -> Reader:
    return lambda options, text: replace(options, cors=replace(options.cors or Cors(), **{field: parse(text)}))


def _origins(text: str) -> tuple[str, ...]:
    origins = tuple(each.strip() for each in text.split(",") if each.strip())
    for each in origins:
        if not ORIGIN.fullmatch(each) or each.count("*") > 1:
            raise ValueError(f"must be origins such as https://example.com or https://*.example.com, not {each!r}")
    if not origins:
        raise ValueError("must name an origin")
    return origins


def _header_text(text: str) -> str:
    if not HEADER_TEXT.fullmatch(text):
        raise ValueError("must be printable ASCII")
    return text


def _header_name(text: str) -> str:
    if not HEADER_NAME.fullmatch(text):
        raise ValueError(f"must be the name of a header, not {text!r}")
    return text.lower()


def _cookie_name(text: str) -> str:
    if not HEADER_NAME.fullmatch(text):
        raise ValueError(f"must be the name of a cookie, not {text!r}")
    return text


def _pattern(text: str) -> str:
    fault = fault_of(text)
    if fault:
        raise ValueError(fault)
    return text


def _cookie(field: str, parse: Callable[[str], Any]) -> Reader:
    return lambda options, text: replace(options, cookie=replace(options.cookie or Cookie(), **{field: parse(text)}))


def _canary(field: str, parse: Callable[[str], Any]) -> Reader:
    return lambda options, text: replace(options, canary=replace(options.canary or Canary(), **{field: parse(text)}))


def _number(least: int, most: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not re.fullmatch(r"[0-9]{1,9}", text) or not least <= int(text) <= most:
            raise ValueError(f"must be {least} to {most}, not {text!r}")
        return int(text)

    return parse


def _boolean(text: str) -> bool:
    """Go's strconv.ParseBool."""
    if text in ("1", "t", "T", "TRUE", "true", "True"):
        return True
    if text in ("0", "f", "F", "FALSE", "false", "False"):
        return False
    raise ValueError(f"must be true or false, not {text!r}")


def _same_site(text: str) -> str:
    if text not in ("None", "Lax", "Strict"):
        raise ValueError(f"must be None, Lax or Strict, not {text!r}")
    return text


def _plain_path(text: str) -> str:
    if not PATH.fullmatch(text) or ";" in text:
        raise ValueError(f"must be an absolute path, not {text!r}")
    return text


def _host(options: Options, text: str) -> Options:
    if not HOST.fullmatch(text):
        raise ValueError(f"must be a host name, not {text!r}")
    return replace(options, upstream_host=text)


def _forwarded_prefix(options: Options, text: str) -> Options:
    if not PATH.fullmatch(text) or not text.isascii():
        raise ValueError(f"must be an absolute path, not {text!r}")
    return replace(options, forwarded_prefix=text)


def _requests(field: str) -> Reader:
    return lambda options, text: replace(options, **{field: _number(1, 1_000_000)(text)})


def _burst(options: Options, text: str) -> Options:
    return replace(options, burst_multiplier=_number(1, 1000)(text))


READERS: dict[str, Reader] = {
    "rewrite-target": _rewrite,
    "use-regex": _flag("use_regex"),
    "ssl-redirect": _flag("ssl_redirect"),
    "force-ssl-redirect": _flag("force_ssl_redirect"),
    "permanent-redirect": _redirect(301),
    "permanent-redirect-code": _redirect_code,
    "temporal-redirect": _redirect(302),
    "temporal-redirect-code": _redirect_code,
    "app-root": _app_root,
    "from-to-www-redirect": _flag("www_redirect"),
    "proxy-body-size": _size,
    "proxy-read-timeout": _idle,
    "proxy-send-timeout": _idle,
    "proxy-connect-timeout": _seconds("connect_timeout_s"),
    "request-timeout": _seconds("request_timeout_s"),
    "whitelist-source-range": _ranges("allowed_sources"),
    "allowlist-source-range": _ranges("allowed_sources"),
    "denylist-source-range": _ranges("denied_sources"),
    "backend-protocol": _protocol,
    "upstream-vhost": _host,
    "x-forwarded-prefix": _forwarded_prefix,
    "limit-rps": _requests("requests_per_s"),
    "limit-rpm": _requests("requests_per_min"),
    "limit-burst-multiplier": _burst,
    "enable-cors": lambda options, text: replace(options, cors=Cors()) if _boolean(text) else options,
    "cors-allow-origin": _cors("origins", _origins),
    "cors-allow-methods": _cors("methods", _header_text),
    "cors-allow-headers": _cors("headers", _header_text),
    "cors-expose-headers": _cors("exposed", _header_text),
    "cors-allow-credentials": _cors("credentials", _boolean),
    "cors-max-age": _cors("age_max_s", _number(0, SECONDS_MAX)),
    "affinity": lambda options, text: replace(options, cookie=Cookie()) if text == "cookie" else options,
    "session-cookie-name": _cookie("name", _cookie_name),
    "session-cookie-path": _cookie("path", _plain_path),
    "session-cookie-max-age": _cookie("age_max_s", _number(0, SECONDS_MAX)),
    "session-cookie-expires": _cookie("age_max_s", _number(0, SECONDS_MAX)),
    "session-cookie-samesite": _cookie("same_site", _same_site),
    "session-cookie-secure": _cookie("secure", _boolean),
    "canary": lambda options, text: replace(options, canary=Canary()) if _boolean(text) else options,
    "canary-by-header": _canary("header", _header_name),
    "canary-by-header-value": _canary("header_value", _header_text),
    "canary-by-header-pattern": _canary("header_pattern", _pattern),
    "canary-by-cookie": _canary("cookie", _cookie_name),
    "canary-weight": _canary("weight", _number(0, WEIGHT_MAX)),
    "canary-weight-total": _canary("weight_total", _number(1, WEIGHT_MAX)),
}
"""In the order in which they are read."""
