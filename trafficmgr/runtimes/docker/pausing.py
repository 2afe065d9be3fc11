"""Which image the pause container runs, and how it gets onto the engine.

Ours is made here and imported (`pause.py`), so a first group needs nothing from anywhere. Another
one can be named in the config; it is pulled if it is not there. If that can't be done now, ours
takes its place: a pause container that only sleeps is no reason to start nothing.
"""

import asyncio

from docker import APIClient
from docker.errors import ImageNotFound

from trafficmgr.core.noun import Noun
from trafficmgr.runtimes.contract import RuntimeFailure
from trafficmgr.runtimes.docker.engine import Engine
from trafficmgr.runtimes.docker.errors import NOT_FOUND, EngineRefusal
from trafficmgr.runtimes.docker.images import Images
from trafficmgr.runtimes.docker.pause import PauseImage, pause_image


class Pause(Noun):
    """What the pause container runs; no command is what the image says."""

    image: str
    command: tuple[str, ...] = ()


class Pauses:
    """The pause image of one engine."""

    def __init__(self, engine: Engine, images: Images, wanted: str) -> None:
        """Use the image that is wanted, or ours if that is ""."""
        self._engine = engine
        self._images = images
        self._wanted = wanted
        self._known: Pause | None = None
        self._turn = asyncio.Lock()

    async def get(self) -> Pause:
        """Return it, after bringing it onto the engine.

        Raises:
            RuntimeFailure: There is none for this engine.
            RuntimeUnknownError: The engine can't be asked.
        """
        async with self._turn:  # two that import it at once leave one of the two without a name
            if self._known is None:
                self._known = await self._theirs() or await self._ours()
            return self._known

    def forget(self) -> None:
        """Look for it anew: the engine says that it is gone."""
        self._known = None

    async def _theirs(self) -> Pause | None:
        if not self._wanted:
            return None
        try:
            await self._engine.call(lambda client: client.inspect_image(self._wanted))  # type: ignore[no-untyped-call]  # its stubs have no types here
        except EngineRefusal as refusal:
            if refusal.status != NOT_FOUND:
                raise
            try:
                await self._images.pull(self._wanted)
            except RuntimeFailure:
                await self._engine.call(lambda _client: None)  # if it is the engine that is away
                return None
        return Pause(image=self._wanted)

    async def _ours(self) -> Pause:
        image = pause_image((await self._engine.known()).architecture)
        await self._engine.call(lambda client: _import(client, image))
        return Pause(image=image.name)


def _import(client: APIClient, image: PauseImage) -> None:
    try:
        client.inspect_image(image.name)  # type: ignore[no-untyped-call]  # its stubs have no types here
    except ImageNotFound:
        repository, _, tag = image.name.rpartition(":")
        client.import_image_from_data(
            image.tar,
            repository=repository,
            tag=tag,
            changes=list(image.changes),
        )
