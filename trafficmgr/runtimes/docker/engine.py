"""Asking the engine: short calls by the `docker` package, in threads.

The package blocks, so its calls run in a pool of four threads: dockerd is the bottleneck, and four
saturate it (measured; field/groups.md 3.1). What waits or streams goes another way
(`conversation.py`). The engine may be away at any time, also when we begin: it is first asked when
it is first needed, and asked again what it is when it was away.

Nothing of the user's docker configuration is used: no context, no proxies, no credentials.
"""

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import requests
import urllib3
from docker import APIClient
from docker.errors import APIError, DockerException
from docker.utils import version_lt

from trafficmgr.core.noun import Noun
from trafficmgr.runtimes.contract import RuntimeFailure
from trafficmgr.runtimes.docker.errors import (
    SECOND_LOOK_S,
    SERVER_ERROR,
    EngineRefusal,
    away,
    innermost,
    refused,
)
from trafficmgr.runtimes.docker.transport import SCHEME, EngineAdapter

_THREADS = 4
_TIMEOUT_S = 60
"""How long a call may take; creating and starting take some 0.1 s each, on a busy machine 10 s."""
_OUR_API = "1.41"
"""Engine 20.10; newer ones speak it until they say that it is too old for them."""

_TROUBLE = (requests.RequestException, urllib3.exceptions.HTTPError, DockerException, OSError)
"""What the package raises when there is no answer at all."""

_Result = TypeVar("_Result")


class EngineFacts(Noun):
    """What kind of engine it is."""

    api_version: str
    architecture: str = ""
    is_podman: bool = False
    is_rootless: bool = False
    has_memory_limit: bool = True
    has_cpu_limit: bool = True
    has_process_limit: bool = True
    cgroup_driver: str = ""
    cgroup_version: str = ""


class Engine:
    """The engine at one address."""

    def __init__(self, base_url: str) -> None:
        """Know where it is; it need not be there yet."""
        self.base_url = base_url
        self.path = "/" + base_url.removeprefix("unix://").lstrip("/")
        self.facts: EngineFacts | None = None
        self._client: APIClient | None = None
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="docker")

    async def call(self, work: Callable[[APIClient], _Result]) -> _Result:
        """Do something with the client in a thread.

        When cancelled it first waits for the call's end: the engine carries it out anyway, and what
        comes next must find it done.

        Raises:
            EngineRefusal: The engine has answered: no.
            RuntimeUnknownError: The engine can't be asked.
        """
        future = asyncio.get_running_loop().run_in_executor(self._pool, self._do, work)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            await asyncio.wait([future])
            if not future.cancelled():
                future.exception()  # of no interest any more
            raise

    async def second_look(self) -> None:
        """Ask whether it is still there, a little after it gave an error of its own.

        Raises:
            RuntimeUnknownError: It is not.
        """
        await asyncio.sleep(SECOND_LOOK_S)
        await self.call(lambda client: client.ping())

    async def known(self) -> EngineFacts:
        """Return what kind of engine it is."""
        if self.facts is None:
            await self.call(lambda _client: None)
        assert self.facts is not None, "a connected engine is known"  # noqa: S101  an invariant, stays on
        return self.facts

    def close(self) -> None:
        """Let go of the engine."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        if self._client is not None:
            self._client.close()

    # -- in a thread ------------------------------------------------------------------------------

    def _do(self, work: Callable[[APIClient], _Result]) -> _Result:
        try:
            return work(self._connected())
        except APIError as error:
            said = str(error.explanation or error).strip().rstrip(".")
            if "client version" in said:
                self._forget()  # the engine was replaced by a newer one
            raise self._judged(error.status_code or 0, said) from error
        except _TROUBLE as error:
            self._forget()
            raise away(self.base_url, innermost(error)) from error

    def _judged(self, status: int, said: str) -> RuntimeFailure:
        """Return what an error means, after a second look if it may be a dying engine's."""
        failure = refused(self.base_url, status, said)
        if status >= SERVER_ERROR and isinstance(failure, EngineRefusal):
            time.sleep(SECOND_LOOK_S)
            try:
                self._connected().ping()
            except _TROUBLE as error:
                self._forget()
                return away(self.base_url, innermost(error))
        return failure

    def _forget(self) -> None:
        """Ask anew what kind of engine it is: another may come back in its place."""
        with self._lock:
            client, self._client = self._client, None
        if client is not None:
            client.close()

    def _connected(self) -> APIClient:
        with self._lock:
            if self._client is None:
                with self._new_client(_OUR_API) as asking:
                    about = asking.version(api_version=False)
                client = self._new_client(_version(about))
                self.facts = _facts(about, client.info(), client.api_version)
                self._client = client
            return self._client

    def _new_client(self, version: str) -> APIClient:
        client = APIClient(base_url=self.base_url, version=version, timeout=_TIMEOUT_S)
        client.trust_env = False
        client.mount(SCHEME, EngineAdapter(self.path, _TIMEOUT_S))
        return client


def _version(about: dict[str, Any]) -> str:
    """Return the version to speak: ours, or the oldest that a newer engine still knows.

    Raises:
        RuntimeFailure: The engine is too old.
    """
    if version_lt(about.get("ApiVersion", _OUR_API), _OUR_API):
        raise RuntimeFailure(
            f"docker: the engine {about.get('Version')} speaks API {about['ApiVersion']}, and "
            f"{_OUR_API} is needed. No group can be started there. Install Docker Engine 20.10 or "
            "newer."
        )
    oldest: str = about.get("MinAPIVersion") or _OUR_API
    return oldest if version_lt(_OUR_API, oldest) else _OUR_API


def _facts(about: dict[str, Any], info: dict[str, Any], version: str) -> EngineFacts:
    parts = " ".join(part.get("Name", "") for part in about.get("Components") or ())
    return EngineFacts(
        api_version=version,
        architecture=about.get("Arch", ""),
        is_podman="podman" in parts.lower(),
        is_rootless=any("rootless" in option for option in info.get("SecurityOptions") or ()),
        has_memory_limit=bool(info.get("MemoryLimit")),
        has_cpu_limit=bool(info.get("CpuCfsQuota")),
        has_process_limit=bool(info.get("PidsLimit")),
        cgroup_driver=info.get("CgroupDriver", ""),
        cgroup_version=str(info.get("CgroupVersion", "1")),
    )
