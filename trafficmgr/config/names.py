"""Names and addresses, as people write them: hosts, URLs, mailboxes, images, users, listeners.

Each function takes what the YAML file has, returns it normalised, and raises `UnfitError` with
what to write instead.
"""

import ipaddress
import re
from typing import NamedTuple
from urllib.parse import SplitResult, urlsplit

from trafficmgr.config.problems import UnfitError
from trafficmgr.config.settings import Address
from trafficmgr.wire.oci import parse_reference

MAX_NAME = 40
"""Endpoint and container names become parts of paths, group ids and socket names."""

MAX_DNS_NAME = 253
"""RFC 1035 section 2.3.4: 255 octets on the wire, which is 253 characters."""

WILDCARD = "*."
"""How a host begins that stands for every name with one label in its place."""

NAME_PATTERN = rf"^[a-z][a-z0-9-]{{0,{MAX_NAME - 1}}}$"
_NAME = re.compile(NAME_PATTERN)
_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")
_MAX_STRING_BYTES = 255  # RFC 1035 section 3.3
_LOCAL_PART = re.compile(r"[A-Za-z0-9._+-]{1,63}")
_USER = re.compile(r"\w[\w.-]{0,63}(:\w[\w.-]{0,63})?", re.ASCII)
_LAST_ID = 2**31 - 1
"""What docker takes; the kernel knows more, and 4294967295 means nobody at all."""
_SECRET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_FILE_NAME = re.compile(r"[A-Za-z0-9._-]{1,128}")
_URL_HINT = "write a whole one, such as http://127.0.0.1:9090/path"
_ENGINE_HINT = "write unix:///var/run/docker.sock, or tcp://host:port"


class Image(NamedTuple):
    """An image reference: the repository with its registry, and the tag to watch."""

    repository: str
    tag: str


def name(value: object) -> str:
    """Return the name of an endpoint or a container."""
    text = _text(value, "is not a name", "write a name such as shop")
    if not _NAME.fullmatch(text):
        fitting = re.sub(r"[^a-z0-9-]+", "-", text.lower()).strip("-0123456789")[:MAX_NAME]
        hint = "lower-case letters, digits and -, a letter first, at most 40 characters"
        raise UnfitError("is not a name", f"{hint}: {fitting}" if fitting else hint)
    return text


def dns_name(value: object) -> str:
    """Return a DNS name in lower case, without the last dot."""
    text = _text(value, "is not a DNS name", "write a name such as shop.apps.test")
    lowered = text.lower().removesuffix(".")
    if not lowered.isascii():
        raise UnfitError("has letters that DNS can't carry", _punycode(lowered))
    if "://" in lowered or "/" in lowered:
        raise UnfitError("is not a DNS name", "write the name alone, without scheme and path")
    if "*" in lowered:
        raise UnfitError("has a *, which names many", "write one name, such as shop.apps.test")
    labels = lowered.split(".")
    if ":" in lowered or labels[-1].isdigit():
        raise UnfitError("is an address or has a port", "write a name such as shop.apps.test")
    if len(lowered) > MAX_DNS_NAME or not all(map(_LABEL.fullmatch, labels)):
        raise UnfitError(
            "is not a DNS name",
            "labels of letters, digits and - (1 to 63 characters each), with dots between",
        )
    return lowered


def host(value: object) -> str:
    """Return a host in lower case: a DNS name, or a wildcard for its first label."""
    text = _text(value, "is not a DNS name", "write a name such as shop.apps.test")
    if "*" not in text:
        return dns_name(text)
    rest = text.removeprefix(WILDCARD)
    if rest == text or "*" in rest:
        parent = text.rpartition("*")[2].lstrip(".") or "apps.test"
        raise UnfitError(
            "has a * that is not its whole first label", f"write {WILDCARD}{parent}, or each name"
        )
    return WILDCARD + dns_name(rest)


def is_wildcard(name: str) -> bool:
    """Whether a host stands for many."""
    return name.startswith(WILDCARD)


def mailbox(value: object) -> str:
    """Return the mailbox of a zone in lower case: hostmaster@apps.test."""
    text = _text(value, "is not a mailbox", "write hostmaster@apps.test")
    local, at, domain = text.rpartition("@")
    if not at or not _LOCAL_PART.fullmatch(local):
        raise UnfitError("is not a mailbox", "write hostmaster@apps.test")
    return f"{local.lower()}@{dns_name(domain)}"


def server_name(value: object) -> str:
    """Return what a DNS server calls itself: one string of a TXT record."""
    hint = f"write at most {_MAX_STRING_BYTES} printable ASCII characters, such as node-1"
    text = _text(value, "is not a text", hint)
    if len(text) > _MAX_STRING_BYTES or not (text.isascii() and text.isprintable()):
        raise UnfitError("is no string of a TXT record", hint)
    return text


def image(value: object) -> Image:
    """Return the parts of an image reference, as docker reads it."""
    text = _text(value, "is not an image reference", "write registry.example.com/shop/web:stable")
    try:
        reference = parse_reference(text)
    except ValueError as error:
        reason = str(error).rstrip(".")
        raise UnfitError(f"can't be used: {reason}", _image_hint(text)) from error
    if reference.digest:
        raise UnfitError(
            "is pinned to a digest, which is not part of this version yet",
            f"write the tag to follow: {text.partition('@')[0]}",
        )
    return Image(f"{reference.registry}/{reference.repository}", reference.tag)


def registry(value: object) -> str:
    """Return the name of a registry as image references have it."""
    text = _text(value, "is not a registry", "write registry.example.com or 127.0.0.1:5000")
    if "/" in text:
        host = text.rpartition("://")[2].partition("/")[0]
        raise UnfitError("is not a registry", f"write the host and port alone: {host}")
    try:
        found = parse_reference(f"{text}/some/image").registry
    except ValueError as error:
        raise UnfitError("is not a registry", "write host or host:port") from error
    return found if found != "docker.io" else _docker_hub(text)


def listen_address(value: object) -> Address:
    """Return an address to listen at: "127.0.0.1:5300" or "[::1]:53"."""
    text = _text(value, "is not an address", 'write "127.0.0.1:8080"')
    host, colon, port = text.rpartition(":")
    if not colon or not (port.isascii() and port.isdigit()):
        raise UnfitError("has no port", f'write "{_bracketed(text)}:8080"')
    if not 0 < int(port) <= 65535:  # noqa: PLR2004  what a port number holds
        raise UnfitError("has a port that does not exist", "write a port from 1 to 65535")
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if not host or (":" in host and bare == host):
        raise UnfitError("has no address", f'write "127.0.0.1:{port}" or "[::1]:{port}"')
    if bare == "localhost":
        raise UnfitError("is a name, not an address", f'write "127.0.0.1:{port}"')
    return Address(ip(bare), int(port))


def ip(value: object) -> str:
    """Return an IPv4 or IPv6 address in its canonical spelling."""
    text = _text(value, "is not an IP address", 'write an address such as "192.0.2.10"')
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        raise UnfitError("is not an IP address", 'write one such as "192.0.2.10"') from None


def network(value: object) -> str:
    """Return a network in its canonical spelling; an address alone is a network of one."""
    hint = 'write one such as "10.0.0.0/8"'
    text = _text(value, "is not a network", hint)
    try:
        found = ipaddress.ip_network(text, strict=False)
        has_rest = ipaddress.ip_interface(text).ip != found.network_address
    except ValueError:
        raise UnfitError("is not a network", hint) from None
    if has_rest:
        raise UnfitError("is an address inside a network", f"write {found}")
    return str(found)


def url(value: object) -> str:
    """Return the URL of an HTTP request, without a user, a password or a fragment."""
    text = _text(value, "is not a URL", _URL_HINT)
    parts = _split(text)
    if parts.scheme not in {"http", "https"}:
        raise UnfitError("is not a URL of http or https", _URL_HINT)
    if not parts.hostname:
        raise UnfitError("has no host", _URL_HINT)
    if "@" in parts.netloc:
        hint = "leave it out: what is in the config is journaled and shown"
        raise UnfitError("has a user or a password in it", hint)
    if parts.fragment:
        raise UnfitError("has a #, which no request carries", f"write {text.partition('#')[0]}")
    if not text.isascii() or " " in text:
        raise UnfitError("has characters that a request can't carry", "write them as %20 and so on")
    return text


def _split(text: str) -> SplitResult:
    try:
        parts = urlsplit(text)
        has_port = parts.port != 0
    except ValueError:
        raise UnfitError("is not a URL", _URL_HINT) from None
    if not has_port:
        raise UnfitError("has a port that does not exist", "write a port from 1 to 65535")
    return parts


def docker_host(value: object) -> str:
    """Return where a Docker engine answers: unix:///var/run/docker.sock or tcp://host:port."""
    text = _text(value, "is not the address of an engine", _ENGINE_HINT)
    if text.startswith("/"):
        raise UnfitError("has no scheme", f"write unix://{text}")
    scheme, _, rest = text.partition("://")
    if scheme not in {"unix", "tcp"}:
        raise UnfitError("is not the address of an engine", _ENGINE_HINT)
    if scheme == "unix" and not rest.startswith("/"):
        fitting = f"/{rest}" if rest else "/var/run/docker.sock"
        raise UnfitError("is not an absolute path", f"write unix://{fitting}")
    if scheme == "tcp" and not re.fullmatch(r"[^/@\s]+:\d{1,5}", rest):
        host = rest.partition("/")[0].partition(":")[0].rpartition("@")[2] or "127.0.0.1"
        raise UnfitError("is not a host and port", f"write tcp://{host}:2375")
    return text


def pause_image(value: object) -> str:
    """Return an image reference, whole: with its registry, and its tag or digest."""
    text = _text(value, "is not an image reference", "write registry.example.com/pause:3.9")
    try:
        reference = parse_reference(text)
    except ValueError as error:
        raise UnfitError(f"can't be used: {str(error).rstrip('.')}", _image_hint(text)) from error
    which = f"@{reference.digest}" if reference.digest else f":{reference.tag}"
    return f"{reference.registry}/{reference.repository}{which}"


def user(value: object) -> str:
    """Return who a container runs as: a name or number, or two with a colon between."""
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    if not isinstance(text, str) or not _USER.fullmatch(text):
        raise UnfitError("is not a user", 'write a name or number, or both: "1000:1000"')
    if any(part.isdigit() and int(part) > _LAST_ID for part in text.split(":")):
        raise UnfitError("is not a number that a user can have", f"the largest is {_LAST_ID}")
    return text


def secret(value: object) -> str:
    """Return the name of a secret."""
    text = _text(value, "is not the name of a secret", "write a name such as db-password")
    if not _SECRET.fullmatch(text):
        hint = "letters, digits, and - . _ after the first, at most 64 characters"
        raise UnfitError("is not the name of a secret", hint)
    return text


def file_name(value: object) -> str:
    """Return the name of a file, without a folder."""
    text = _text(value, "is not the name of a file", "write a name such as tls.key")
    if not _FILE_NAME.fullmatch(text) or text in {".", ".."}:
        bare = text.rstrip("/").rpartition("/")[2]
        fitting = f": {bare}" if _FILE_NAME.fullmatch(bare) and bare not in {".", ".."} else ""
        hint = f"one name without a folder, of letters, digits and - . _{fitting}"
        raise UnfitError("is not the name of a file", hint)
    return text


def _text(value: object, predicate: str, hint: str) -> str:
    """Return the value if it is text that a terminal and a path can carry."""
    if not isinstance(value, str) or not value or not value.isprintable():
        raise UnfitError(predicate, hint)
    return value


def _punycode(host: str) -> str:
    try:
        return f"write {host.encode('idna').decode()}"
    except UnicodeError:
        return "write it with letters, digits and - only"


def _image_hint(text: str) -> str:
    return f"write {text.lower()}" if text != text.lower() else "write shop/web:stable"


def _docker_hub(text: str) -> str:
    """Return docker.io, unless the name only became that because it is no registry at all."""
    if text in ("docker.io", "index.docker.io"):
        return "docker.io"
    raise UnfitError("is not a registry", f"write its whole name, such as {text}.example.com")


def _bracketed(text: str) -> str:
    return f"[{text.strip('[]')}]" if text.count(":") > 1 else text.rstrip(":")
