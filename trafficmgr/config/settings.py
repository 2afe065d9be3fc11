"""What the YAML file means once it is checked: frozen values, nothing left to interpret.

Everything after `load` reads these. Durations are seconds (`*_s`), paths are absolute, names are
lower case, image references are normalised, and every default is filled in.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from trafficmgr.core.dns_policy import DnsPolicy
from trafficmgr.core.model import EndpointSettings
from trafficmgr.core.routing import Zone
from trafficmgr.core.template import FromEnv, FromFile
from trafficmgr.core.traffic import Front

KEEP_LOGS_S = 86400.0
"""A day: long enough to read in the morning why a group was replaced at night."""


@dataclass(frozen=True, slots=True)
class Address:
    """A place to listen at: an IP literal and a port. `str()` gives back what was written."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class RegistrySettings:
    """How to talk to one registry; `is_insecure` allows plain http.

    The password stays in its file, so that settings can be shown and logged.
    """

    username: str | None = None
    password_file: Path | None = None
    is_insecure: bool = False


@dataclass(frozen=True, slots=True)
class RuntimeSettings:
    """Which engine runs the groups, and where it is.

    `host` is where a Docker engine answers (unix:///..., tcp://...); "" is DOCKER_HOST, or the
    usual socket. `pause_image` is the image of the container that holds a group's network; "" is
    our own, which needs no registry. The embedded runtime looks at neither.
    """

    kind: Literal["embedded", "docker"] = "embedded"
    host: str = ""
    pause_image: str = ""


@dataclass(frozen=True, slots=True)
class UpdatePolicy:
    """How a new image is noticed: the tag's digest, looked up every so often."""

    every_s: float = 60.0


@dataclass(frozen=True, slots=True)
class EndpointConfig:
    """An endpoint: what the core decides by, and how its image is watched."""

    settings: EndpointSettings
    update: UpdatePolicy


@dataclass(frozen=True, slots=True)
class Settings:
    """A whole configuration file.

    `advertise` is what DNS answers for `publish: proxy`; `address_pool` is an IPv4 network, on
    loopback for the embedded runtime and private for Docker; `registries` is keyed by the
    registry's name as image references have it; `max_concurrent` is how many endpoints may be
    rolled out at once. `secrets` says where each value is read from when a group starts, never
    the value; its paths are absolute. `keep_logs_s` is how long logs outlive their group. `front`
    concerns every connection of `listen_http` and `listen_https`; its paths are absolute. `dns`
    has no secret yet.
    """

    path: Path
    state_dir: Path
    listen_dns: tuple[Address, ...]
    listen_http: tuple[Address, ...]
    advertise: tuple[str, ...]
    address_pool: str
    workers: int
    runtime: RuntimeSettings
    max_concurrent: int
    zones: tuple[Zone, ...]
    registries: dict[str, RegistrySettings]
    endpoints: dict[str, EndpointConfig]
    keep_logs_s: float = KEEP_LOGS_S
    secrets: dict[str, FromFile | FromEnv] = field(default_factory=dict)
    listen_https: tuple[Address, ...] = ()
    front: Front = field(default_factory=Front)
    dns: DnsPolicy = field(default_factory=DnsPolicy)
