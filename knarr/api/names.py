"""What may be a name, a label, an annotation key: the rules of RFC 1123, RFC 1035 and apimachinery's validation.

Each function answers the list of faults, empty when the value is right. Patterns match in full, so that a
trailing newline is never let through. What matches is ASCII, so that its characters are its bytes.
"""

from __future__ import annotations

import re

LABEL_LENGTH_MAX = 63
SUBDOMAIN_LENGTH_MAX = 253

_DNS1123_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_DNS1123_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_DNS1035_LABEL = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
_QUALIFIED = re.compile(r"([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]")
_LABEL_VALUE = re.compile(r"(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?")


def dns1123_label_faults(value: str) -> list[str]:
    if len(value) <= LABEL_LENGTH_MAX and _DNS1123_LABEL.fullmatch(value):
        return []
    faults = _length_faults(value, LABEL_LENGTH_MAX)
    if not _DNS1123_LABEL.fullmatch(value):
        if _DNS1123_SUBDOMAIN.fullmatch(value):
            faults.append("must not contain dots")
        else:
            faults.append(
                "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start "
                "and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is "
                "'[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
            )
    return faults


def dns1123_subdomain_faults(value: str) -> list[str]:
    if len(value) <= SUBDOMAIN_LENGTH_MAX and _DNS1123_SUBDOMAIN.fullmatch(value):
        return []
    faults = _length_faults(value, SUBDOMAIN_LENGTH_MAX)
    if not _DNS1123_SUBDOMAIN.fullmatch(value):
        faults.append(
            "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must "
            "start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is "
            "'[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
        )
    return faults


def dns1035_label_faults(value: str) -> list[str]:
    faults = _length_faults(value, LABEL_LENGTH_MAX)
    if not _DNS1035_LABEL.fullmatch(value):
        faults.append(
            "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic "
            "character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for "
            "validation is '[a-z]([-a-z0-9]*[a-z0-9])?')"
        )
    return faults


def path_segment_faults(value: str) -> list[str]:
    """Names that only need to fit into a URL (roles and such)."""
    if value in (".", ".."):
        return [f"may not be '{value}'"]
    return [f"may not contain '{character}'" for character in "/%" if character in value]


def label_key_faults(key: str) -> list[str]:
    """A qualified name: [prefix/]name."""
    if len(key) <= LABEL_LENGTH_MAX and _QUALIFIED.fullmatch(key):
        return []
    prefix, slash, name = key.rpartition("/")
    faults: list[str] = []
    if slash and not prefix:
        faults.append("prefix part must be non-empty")
    elif prefix:
        if "/" in prefix:
            return [
                "a qualified name must consist of alphanumeric characters, '-', '_' or '.', and must start and end "
                "with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for "
                "validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]') with an optional DNS subdomain prefix and "
                "'/' (e.g. 'example.com/MyName')"
            ]
        faults += ["prefix part " + fault for fault in dns1123_subdomain_faults(prefix)]
    if not name:
        faults.append("name part must be non-empty")
    elif len(name) > LABEL_LENGTH_MAX:
        faults.append(f"name part must be no more than {LABEL_LENGTH_MAX} bytes")
    if not _QUALIFIED.fullmatch(name):
        faults.append(
            "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an "
            "alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is "
            "'([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"
        )
    return faults


def label_value_faults(value: str) -> list[str]:
    if len(value) <= LABEL_LENGTH_MAX and _LABEL_VALUE.fullmatch(value):
        return []
    faults = _length_faults(value, LABEL_LENGTH_MAX)
    if not _LABEL_VALUE.fullmatch(value):
        faults.append(
            "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must "
            "start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for "
            "validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"
        )
    return faults


def _length_faults(value: str, limit: int) -> list[str]:
    return [f"must be no more than {limit} bytes"] if len(value.encode("utf-8", "surrogatepass")) > limit else []


def is_extended_resource(name: str) -> bool:
    """Whether a name is that of a resource which Kubernetes itself doesn't know (example.com/gpu)."""
    domain, slash, _ = name.partition("/")
    own = domain == "kubernetes.io" or domain.endswith(".kubernetes.io")
    return bool(slash) and not own and not name.startswith("requests.") and not label_key_faults(f"requests.{name}")
