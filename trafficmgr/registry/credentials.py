"""Who we are to a registry: from our config, else from docker's config.json and its helpers.

Files are read anew at each use, so that a rotated password needs no restart. Bad credentials are
an error and never silently become none: an anonymous pull that works would hide them for months.

Sources: docker's config.json and credential-helper protocol; field/registries.md 3.4.
"""

import asyncio
import base64
import binascii
import ipaddress
import os
import re
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import msgspec

from trafficmgr.registry.errors import AccessDeniedError

HELPER_TIMEOUT_S = 10.0
"""Helpers ask a cloud or a keychain; docker itself waits for ever."""

_HELPER_NAME = re.compile(r"[A-Za-z0-9._-]+")
_HUB = "docker.io"
_HUB_KEYS = ("index.docker.io", "docker.io", "registry-1.docker.io")
_T = TypeVar("_T")
_NOT_FOUND = "credentials not found"


@dataclass(frozen=True)
class RegistryAccess:
    """How to reach one registry, as configured.

    `is_insecure` allows plain http. `ca_file` holds the certificates to trust instead of the
    machine's, and makes https the scheme of a loopback registry too.
    """

    username: str = ""
    password: str = field(default="", repr=False)
    password_file: str = ""
    is_insecure: bool = False
    ca_file: str = ""


@dataclass(frozen=True)
class Credentials:
    """What to show to a registry. An identity token takes the place of user and password."""

    username: str = ""
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)

    @property
    def basic(self) -> str:
        """The value of an Authorization header."""
        pair = f"{self.username}:{self.password}".encode()
        return "Basic " + base64.b64encode(pair).decode()


def is_loopback(host: str) -> bool:
    """Whether a host (without port) is this machine by its very name."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


async def find_credentials(
    registry: str, repository: str, access: RegistryAccess, environ: Mapping[str, str] = os.environ
) -> Credentials | None:
    """Return the credentials for a repository, or None to go without.

    Raises:
        AccessDeniedError: There are some, but they can't be read.
    """
    if access.username:
        return await asyncio.to_thread(_configured, registry, access)
    config = await asyncio.to_thread(_docker_config, registry, environ)
    if config is None:
        return None
    helper = _match(config.cred_helpers, registry, repository) or config.creds_store
    if helper:
        found = await _ask_helper(registry, helper)
        if found is not None:
            return found
    entry = _match(config.auths, registry, repository)
    return None if entry is None else _decode_entry(registry, entry)


def _configured(registry: str, access: RegistryAccess) -> Credentials:
    password = access.password
    if access.password_file:
        try:
            password = Path(access.password_file).read_text().rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            raise AccessDeniedError(
                registry, f"its password file {access.password_file} can't be read ({error})"
            ) from error
    return Credentials(username=access.username, password=password)


# -- docker's config.json -------------------------------------------------------------------------


class _Entry(msgspec.Struct):
    auth: str = ""
    username: str = ""
    password: str = ""
    identitytoken: str = ""


class _DockerConfig(msgspec.Struct):
    auths: dict[str, _Entry] = {}
    cred_helpers: dict[str, str] = msgspec.field(name="credHelpers", default_factory=dict)
    creds_store: str = msgspec.field(name="credsStore", default="")


class _HelperAnswer(msgspec.Struct, rename="pascal"):
    username: str
    secret: str


def _docker_config(registry: str, environ: Mapping[str, str]) -> _DockerConfig | None:
    folder = environ.get("DOCKER_CONFIG") or str(Path(environ.get("HOME", "/")) / ".docker")
    path = Path(folder) / "config.json"
    try:
        return msgspec.json.decode(path.read_bytes(), type=_DockerConfig)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, msgspec.DecodeError) as error:
        raise AccessDeniedError(registry, f"{path} can't be read ({error})") from error


def _match(entries: Mapping[str, _T], registry: str, repository: str) -> _T | None:
    """Return the entry for a repository: the longest prefix wins, then the bare host."""
    by_name = {_bare(key): value for key, value in entries.items()}
    parts = repository.split("/")
    hosts = _HUB_KEYS if registry == _HUB else (registry,)
    for length in range(len(parts), -1, -1):
        for host in hosts:
            name = "/".join((host, *parts[:length]))
            if name in by_name:
                return by_name[name]
    return None


def _bare(key: str) -> str:
    """Strip what people and docker put around a host: https://host/v1/ is host."""
    return re.sub(r"/v[12]/?$", "", re.sub(r"^https?://", "", key)).rstrip("/")


def _decode_entry(registry: str, entry: _Entry) -> Credentials | None:
    if entry.identitytoken:
        return Credentials(identity_token=entry.identitytoken)
    if not entry.auth:
        has_some = bool(entry.username or entry.password)
        return Credentials(entry.username, entry.password) if has_some else None
    try:
        username, colon, password = base64.b64decode(entry.auth).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError) as error:
        raise AccessDeniedError(registry, "its auth in config.json is no base64") from error
    if not colon:
        raise AccessDeniedError(registry, "its auth in config.json has no user and password")
    return Credentials(username, password.rstrip("\0"))


# -- credential helpers ---------------------------------------------------------------------------


async def _ask_helper(registry: str, helper: str) -> Credentials | None:
    if not _HELPER_NAME.fullmatch(helper):
        raise AccessDeniedError(registry, f'"{helper}" in config.json is no name of a helper')
    program = f"docker-credential-{helper}"
    server = "https://index.docker.io/v1/" if registry == _HUB else registry
    code, output = await _run(registry, program, server.encode())
    if code != 0:
        said = output.decode(errors="replace").strip()[:200]
        if _NOT_FOUND in said:
            return None
        raise AccessDeniedError(registry, f"{program} failed with status {code} ({said})")
    try:
        answer = msgspec.json.decode(output, type=_HelperAnswer)
    except msgspec.DecodeError as error:
        raise AccessDeniedError(registry, f"{program} answered with no credentials") from error
    if answer.username == "<token>":
        return Credentials(identity_token=answer.secret)
    return Credentials(answer.username, answer.secret)


async def _run(registry: str, program: str, question: bytes) -> tuple[int, bytes]:
    """Run a helper to its end; it never outlives its deadline or us."""
    try:
        process = await asyncio.create_subprocess_exec(
            program, "get", stdin=PIPE, stdout=PIPE, stderr=DEVNULL
        )
    except OSError as error:
        raise AccessDeniedError(registry, f"{program} can't be run ({error})") from error
    try:
        async with asyncio.timeout(HELPER_TIMEOUT_S):
            output, _ = await process.communicate(question)
    except TimeoutError as error:
        what = f"{program} did not answer within {HELPER_TIMEOUT_S:g} s"
        raise AccessDeniedError(registry, what) from error
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return process.returncode or 0, output
