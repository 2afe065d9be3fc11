"""The network on which groups have the addresses that our allocator gives them.

One bridge for each instance, its subnet the whole `address_pool`, its gateway the pool's last
usable address, which the allocator leaves out. A network that is there already with exactly this
subnet is used as it is, so that an operator can make one and put trafficmgr itself on it; only
another trafficmgr's is refused, because two allocators would give the same address twice.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from ipaddress import IPv4Network
from typing import Any

from docker import APIClient
from docker.errors import APIError
from docker.types import IPAMConfig, IPAMPool

from trafficmgr.runtimes.contract import RuntimeFailure
from trafficmgr.runtimes.docker.engine import Engine
from trafficmgr.runtimes.docker.names import INSTANCE, OUR_VERSION, VERSION, filters, network_name


class GroupNetwork:
    """The network of one instance's groups, made when it is first needed."""

    def __init__(self, engine: Engine, *, instance: str, pool: str) -> None:
        """Know which one it is; `pool` is an IPv4 network."""
        self._engine = engine
        self._instance = instance
        self._pool = IPv4Network(pool)
        self._turn = asyncio.Lock()
        self._name = ""
        self._users = 0

    @asynccontextmanager
    async def held(self) -> AsyncIterator[str]:
        """Give the network's name, made if there is none, and let nobody remove it meanwhile.

        Raises:
            RuntimeFailure: It can't be made.
            RuntimeUnknownError: The engine can't be asked.
        """
        self._users += 1
        try:
            async with self._turn:
                self._name = self._name or await self._engine.call(self._ensure)
            yield self._name
        finally:
            self._users -= 1

    def forget(self) -> None:
        """Look for it anew: the engine says that it is gone."""
        self._name = ""

    async def remove_if_unused(self) -> None:
        """Remove what we have made, if nothing is on it: the last group has left."""
        async with self._turn:
            if not self._users:
                self._name = ""
                await self._engine.call(self._remove)

    # -- in a thread ------------------------------------------------------------------------------

    def _remove(self, client: APIClient) -> None:
        for network in client.networks(filters=filters(self._instance)):
            with suppress(APIError):  # something is on it
                client.remove_network(network["Id"])

    def _ensure(self, client: APIClient) -> str:
        for network in client.networks(filters={"driver": "bridge"}):
            if str(self._pool) in _subnets(network):
                return self._usable(network)
        name = network_name(self._instance, str(self._pool))
        gateway = str(self._pool[-2])
        client.create_network(
            name,
            driver="bridge",
            ipam=IPAMConfig(pool_configs=[IPAMPool(subnet=str(self._pool), gateway=gateway)]),
            labels={INSTANCE: self._instance, VERSION: OUR_VERSION},
        )
        return name

    def _usable(self, network: dict[str, Any]) -> str:
        owner = (network.get("Labels") or {}).get(INSTANCE, self._instance)
        if owner != self._instance:
            raise RuntimeFailure(
                f"docker: address_pool {self._pool} belongs to another trafficmgr on this engine "
                f"(network {network['Name']}). No group can be started, what runs is left alone. "
                "Give one of the two another address_pool."
            )
        return str(network["Name"])


def _subnets(network: dict[str, Any]) -> list[str]:
    return [part.get("Subnet", "") for part in (network.get("IPAM") or {}).get("Config") or ()]
