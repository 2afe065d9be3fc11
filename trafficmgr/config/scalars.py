"""What a single value of the YAML file takes: text, numbers, durations, names, paths, patterns.

Each kind is a type for pydantic: how it is read, and how the JSON Schema shows it. Reading names
and units is done in `names` and `units`; what is too small for those is here.
"""

import os
import posixpath
import re
import warnings
from typing import Annotated

from pydantic import Field, PlainValidator, WithJsonSchema

from trafficmgr.config import names, pools, units
from trafficmgr.config.problems import UnfitError
from trafficmgr.config.settings import Address
from trafficmgr.core.counted import BOUNDS_S

MAX_WORKERS = 256
ALL_PCT = 100
MIN_HEAD_BYTES = 1024
MAX_HEAD_BYTES = 1024 * 1024
"""Every client may send as much before anything is known of it, and thousands are connected."""

_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,128}")
_TAKEN = ("/proc", "/sys", "/dev", "/.trafficmgr")
"""The kernel's places, and the one where Docker groups have a program of ours."""


def _text(example: str, **more: str) -> WithJsonSchema:
    return WithJsonSchema({"type": "string", "examples": [example], **more})


def worker_count(value: object) -> int:
    """Return a number of workers; `auto` is one for each CPU that we may use."""
    if value == "auto":
        return min(MAX_WORKERS, len(os.sched_getaffinity(0)))
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= MAX_WORKERS:
        return value
    raise UnfitError(
        "is not a number of workers", f"write auto, or a number from 1 to {MAX_WORKERS}"
    )


def _env_value(value: object) -> str:
    """Return a variable's value. A boolean could mean yes, True or 1, so its text is asked for."""
    if isinstance(value, str) and "\0" not in value:
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    raise UnfitError("is not text", 'write it in quotes: "{written}"')


def _variable(value: object) -> str:
    if not isinstance(value, str) or not value or "=" in value or not value.isprintable():
        raise UnfitError("is not the name of a variable", "write a name such as GREETING")
    return value


def _path(value: object) -> str:
    if not isinstance(value, str) or not value or "\0" in value:
        raise UnfitError("is not a path", "write a path such as ./state")
    if value.startswith("~"):
        raise UnfitError("starts with ~, which is not expanded", "write the whole path")
    return value


def _working_dir(value: object) -> str:
    path = _path(value)
    if not path.startswith("/") or ".." in path.split("/"):
        raise UnfitError("is not an absolute path", "write a path inside the image, such as /app")
    return path


def _mount_path(value: object) -> str:
    """Return where a volume is seen. The kernel's own places, and ours, are not to be hidden."""
    if not isinstance(value, str) or not value.startswith("/") or not value.isprintable():
        raise UnfitError("is not an absolute path", "write a path inside the container: /data")
    if ".." in value.split("/"):
        raise UnfitError("has a .. in it", "write the path without detours")
    path = "/" + posixpath.normpath(value).lstrip("/")
    if path == "/":
        raise UnfitError("would hide the whole image", "write a folder, such as /data")
    is_inside = path.startswith(tuple(f"{one}/" for one in _TAKEN if one != "/dev"))
    if path in _TAKEN or is_inside:  # below /dev somebody may well want /dev/shm
        raise UnfitError("belongs to the system", "write another folder, such as /data")
    return path


def _host_path(value: object) -> str:
    if not isinstance(value, str) or not value.startswith("/") or not value.isprintable():
        raise UnfitError("is not an absolute path", "write a path of the host, such as /srv/data")
    if ".." in value.split("/"):
        raise UnfitError("has a .. in it", "write the path without detours")
    return value


def _url_path(value: object) -> str:
    if not isinstance(value, str) or not value.startswith("/"):
        raise UnfitError("is not a path", "write a path such as /healthz")
    if not value.isascii() or not value.isprintable() or " " in value or "#" in value:
        raise UnfitError("has characters that a request can't carry", "write them as %20 and so on")
    return value


def _path_prefix(value: object) -> str:
    """Return the beginning of a path, without a slash at its end."""
    path = _url_path(value)
    if "?" in path:
        raise UnfitError("has a ?, which is no part of a path", f"write {path.partition('?')[0]}")
    if not path.strip("/"):
        raise UnfitError("is every path", "leave paths out: without them all requests are meant")
    fitting = "/" + "/".join(part for part in path.split("/") if part not in {"", ".", ".."})
    if path.removesuffix("/") != fitting:
        raise UnfitError("has empty or dotted segments", f"write {fitting}")
    return fitting


def _field_name(value: object) -> str:
    """Return the name of a header in lower case: a token (RFC 9110 section 5.1)."""
    if not isinstance(value, str) or not _TOKEN.fullmatch(value):
        raise UnfitError("is not the name of a header", "write a name such as x-user")
    if value.lower() == "cookie":
        raise UnfitError("holds all cookies", "name one of them: cookie: session")
    return value.lower()


def _cookie_name(value: object) -> str:
    """Return the name of a cookie: a token (RFC 6265 section 4.1.1)."""
    if not isinstance(value, str) or not _TOKEN.fullmatch(value):
        raise UnfitError("is not the name of a cookie", "write a name such as session")
    return value


def _field_value(value: object) -> str:
    """Return what a header or a cookie is compared with."""
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    if not isinstance(text, str):
        raise UnfitError("is not text", 'write it in quotes: "{written}"')
    if not text:
        raise UnfitError("is empty", "leave it out: then any value fits")
    if not text.isascii() or not text.isprintable() or text != text.strip():
        raise UnfitError("has characters that a request can't carry", "write plain ASCII")
    return text


def _head_size(value: object) -> int:
    """Return a bound on what a client may send before we know what it wants."""
    size_bytes = units.size(value)
    if size_bytes < MIN_HEAD_BYTES:
        raise UnfitError("is less than browsers send", "write 1KiB or more")
    if size_bytes > MAX_HEAD_BYTES:
        raise UnfitError("is more than each of many clients should take", "write 1MiB or less")
    return size_bytes


def _argument(value: object) -> str:
    if isinstance(value, str) and "\0" not in value:
        return value
    raise UnfitError("is not text", 'write it in quotes: "{written}"')


def _json_path(value: object) -> str:
    """Return the way to a value in JSON: keys and indices with dots between."""
    if not isinstance(value, str) or not value or not value.isprintable():
        raise UnfitError("is not a path in JSON", "write it with dots: data.result.0.value.1")
    plain = re.sub(r"\[[\"']?([^\]\"']*)[\"']?\]", r".\1", value).lstrip("$.")
    if plain != value or "" in value.split("."):
        fitting = ".".join(filter(None, plain.split("."))) or "data.result.0.value.1"
        raise UnfitError("is not keys with dots between", f"write {fitting}")
    return value


def _pattern(value: object) -> str:
    """Return a regular expression that compiles, and that means one thing only."""
    text = _argument(value)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", FutureWarning)  # of what has two meanings, as "[[a]"
            re.compile(text)
    except (re.error, FutureWarning, OverflowError, RecursionError) as error:
        hint = "write it as Python reads it; \\ before a character takes it as it is"
        raise UnfitError(f"is not a regular expression: {error}", hint) from None
    return text


def _latency(value: object) -> float:
    """Return a limit that can be judged by what workers count."""
    seconds, most_s = units.positive_duration(value), BOUNDS_S[-1]
    if seconds > most_s:
        most = units.shown(most_s)
        raise UnfitError(
            f"is more than {most}, above which answers are not told apart", f"write {most} or less"
        )
    return seconds


def _weight(value: object) -> int:
    if value == ALL_PCT:
        raise UnfitError("is 100", "remove this step: 100 comes by itself after the last one")
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < ALL_PCT:
        return value
    raise UnfitError(
        "is not a weight", "write a whole number of per cent, 1 to 99, or 0 for a preview"
    )


Duration = Annotated[
    float, PlainValidator(units.duration), _text("10s", pattern=units.DURATION_PATTERN)
]
PositiveDuration = Annotated[
    float, PlainValidator(units.positive_duration), _text("10s", pattern=units.DURATION_PATTERN)
]
Interval = Annotated[
    float, PlainValidator(units.interval), _text("30s", pattern=units.DURATION_PATTERN)
]
Latency = Annotated[float, PlainValidator(_latency), _text("400ms", pattern=units.DURATION_PATTERN)]
_SHARE = WithJsonSchema(
    {"type": ["string", "number"], "pattern": units.SHARE_PATTERN, "examples": ["1%"]}
)
Share = Annotated[float, PlainValidator(units.share), _SHARE]
Alpha = Annotated[float, PlainValidator(units.alpha), _SHARE]
Ttl = Annotated[int, PlainValidator(units.ttl), _text("10s", pattern=units.DURATION_PATTERN)]
Size = Annotated[int, PlainValidator(units.size), _text("256MiB", pattern=units.SIZE_PATTERN)]
HeadSize = Annotated[int, PlainValidator(_head_size), _text("8KiB", pattern=units.SIZE_PATTERN)]
Name = Annotated[str, PlainValidator(names.name), _text("web", pattern=names.NAME_PATTERN)]
Percent = Annotated[float, PlainValidator(units.percent), _SHARE]
DnsName = Annotated[str, PlainValidator(names.dns_name), _text("shop.apps.test")]
HostName = Annotated[str, PlainValidator(names.host), _text("shop.apps.test")]
ServerName = Annotated[str, PlainValidator(names.server_name), _text("node-1")]
Mailbox = Annotated[str, PlainValidator(names.mailbox), _text("hostmaster@apps.test")]
Image = Annotated[
    names.Image, PlainValidator(names.image), _text("registry.example.com/shop/web:stable")
]
Registry = Annotated[str, PlainValidator(names.registry), _text("registry.example.com")]
Listen = Annotated[Address, PlainValidator(names.listen_address), _text("127.0.0.1:8080")]
Ip = Annotated[str, PlainValidator(names.ip), _text("192.0.2.10")]
Network = Annotated[str, PlainValidator(names.network), _text("10.0.0.0/8")]
Pool = Annotated[str, PlainValidator(pools.pool), _text(pools.DEFAULTS["embedded"])]
DockerHost = Annotated[str, PlainValidator(names.docker_host), _text("unix:///var/run/docker.sock")]
PauseImage = Annotated[
    str, PlainValidator(names.pause_image), _text("registry.example.com/pause:3.9")
]
PathText = Annotated[str, PlainValidator(_path), _text("./state")]
WorkingDir = Annotated[str, PlainValidator(_working_dir), _text("/app")]
MountPath = Annotated[str, PlainValidator(_mount_path), _text("/data")]
HostPath = Annotated[str, PlainValidator(_host_path), _text("/srv/data")]
FileName = Annotated[str, PlainValidator(names.file_name), _text("tls.key")]
SecretName = Annotated[str, PlainValidator(names.secret), _text("token")]
User = Annotated[
    str,
    PlainValidator(names.user),
    WithJsonSchema({"type": ["string", "integer"], "examples": ["1000:1000"]}),
]
Url = Annotated[str, PlainValidator(names.url), _text("http://127.0.0.1:9090/path")]
JsonPath = Annotated[str, PlainValidator(_json_path), _text("data.result.0.value.1")]
Pattern = Annotated[str, PlainValidator(_pattern), _text("Hello, .*")]
UrlPath = Annotated[str, PlainValidator(_url_path), _text("/healthz")]
PathPrefix = Annotated[str, PlainValidator(_path_prefix), _text("/api")]
FieldName = Annotated[str, PlainValidator(_field_name), _text("x-user")]
CookieName = Annotated[str, PlainValidator(_cookie_name), _text("session")]
FieldValue = Annotated[
    str,
    PlainValidator(_field_value),
    WithJsonSchema({"type": ["string", "integer"], "examples": ["yes"]}),
]
Argument = Annotated[str, PlainValidator(_argument), _text("--verbose")]
Variable = Annotated[str, PlainValidator(_variable), _text("GREETING")]
EnvValue = Annotated[
    str,
    PlainValidator(_env_value),
    WithJsonSchema({"type": ["string", "integer"], "examples": ["hello"]}),
]
Workers = Annotated[
    int,
    PlainValidator(worker_count),
    WithJsonSchema(
        {"anyOf": [{"const": "auto"}, {"type": "integer", "minimum": 1, "maximum": MAX_WORKERS}]}
    ),
]
Port = Annotated[int, Field(strict=True, ge=1, le=65535, examples=[8080])]
Count = Annotated[int, Field(strict=True, ge=1, le=1000, examples=[2])]
PerSecond = Annotated[int, Field(strict=True, ge=0, le=1_000_000, examples=[200])]
Slip = Annotated[int, Field(strict=True, ge=0, le=10, examples=[2])]
Requests = Annotated[int, Field(strict=True, ge=1, le=1_000_000_000, examples=[100])]
Waiting = Annotated[int, Field(strict=True, ge=0, le=1_000_000, examples=[100])]
Clients = Annotated[int, Field(strict=True, ge=1, le=1_000_000, examples=[20000])]
FieldCount = Annotated[int, Field(strict=True, ge=10, le=1000, examples=[100])]
Status = Annotated[int, Field(strict=True, ge=100, le=599, examples=[200])]
Number = Annotated[float, Field(strict=True, allow_inf_nan=False, examples=[0.01])]
Weight = Annotated[
    int,
    PlainValidator(_weight),
    WithJsonSchema({"type": "integer", "minimum": 0, "maximum": 99, "examples": [10]}),
]
Flag = Annotated[bool, Field(strict=True)]
Cpu = Annotated[float, Field(strict=True, gt=0, le=1024, allow_inf_nan=False, examples=[0.5])]
