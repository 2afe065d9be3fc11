"""The values that a template only names: read when a group starts, and kept by nobody (DESIGN 8).

A value goes from its file or variable straight to the runtime. It is read anew for each group, so
that a secret that was rotated is taken up by the next one. No error, log or event says more of it
than its name and where it should have come from.

* A variable holds UTF-8 text without NUL bytes; one final line end of a file is not part of it.
* A file of a secret volume holds the same bytes as its source.
"""

import asyncio
import os
import stat
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import suppress

from trafficmgr.core.template import (
    FromEnv,
    FromFile,
    FromSecret,
    GroupTemplate,
    SecretFiles,
    ValueFrom,
)
from trafficmgr.runtimes.contract import RuntimeFailure, Secrets

Sources = Mapping[str, FromFile | FromEnv]
"""Name of a secret -> where its value is read from."""

ReadSecrets = Callable[[GroupTemplate], Awaitable[Secrets]]
"""Reads what a template names; raises RuntimeFailure."""

MAX_BYTES = 1024 * 1024
"""As large as a secret of Kubernetes; it is held in memory, here and by every group."""


class SecretStore:
    """Knows where each secret of the config comes from, and no value."""

    def __init__(self, sources: Sources, env: Mapping[str, str] = os.environ) -> None:
        """Make it.

        Args:
            sources: The config's `secrets`.
            env: The controller's own environment.
        """
        self._sources = dict(sources)
        self._env = env

    def use(self, sources: Sources) -> None:
        """Read from here on where another config says."""
        self._sources = dict(sources)

    async def read(self, template: GroupTemplate) -> Secrets:
        """Return every value that a template names.

        Raises:
            RuntimeFailure: One of them can't be read.
        """
        if not _names_any(template):
            return Secrets()
        return await asyncio.to_thread(self._read, template)

    def unreadable(self) -> Iterator[str]:
        """Yield a sentence for each secret of the config that can't be read now."""
        for name in self._sources:
            try:
                self._bytes(FromSecret(name=name))
            except RuntimeFailure as failure:
                yield str(failure)

    def _read(self, template: GroupTemplate) -> Secrets:
        env = {
            container.name: {key: self._text(source) for key, source in container.env_from.items()}
            for container in template.every_container()
            if container.env_from
        }
        files = {
            volume.name: {
                file: self._bytes(FromSecret(name=name))
                for file, name in volume.source.files.items()
            }
            for volume in template.volumes
            if isinstance(volume.source, SecretFiles)
        }
        return Secrets(env=env, files=files)

    def _text(self, source: ValueFrom) -> str:
        """Return a value as a variable can hold it."""
        origin, data = self._origin(source), self._bytes(source)
        if isinstance(origin, FromFile):
            data = data.removesuffix(b"\n").removesuffix(b"\r")
        with suppress(UnicodeDecodeError):  # its text would say the value
            text = data.decode()
            if "\0" not in text:
                return text
        raise _failure(source, origin, "is no text, as a variable must be", "mount it as a file")

    def _bytes(self, source: ValueFrom) -> bytes:
        match self._origin(source):
            case FromFile() as file:
                return _contents(source, file)
            case FromEnv(variable=variable) as origin:
                if variable in self._env:
                    return os.fsencode(self._env[variable])
                advice = "set it where trafficmgr is started, and restart the service"
                raise _failure(source, origin, "is not there", advice)

    def _origin(self, source: ValueFrom) -> FromFile | FromEnv:
        """Return the file or variable that a source leads to."""
        if not isinstance(source, FromSecret):
            return source
        if source.name not in self._sources:
            advice = "write it under `secrets`"
            raise _failure(source, source, "is not in the config any more", advice)
        return self._sources[source.name]


def _names_any(template: GroupTemplate) -> bool:
    """Return whether there is anything to read at all."""
    return any(container.env_from for container in template.every_container()) or any(
        isinstance(volume.source, SecretFiles) for volume in template.volumes
    )


def _contents(source: ValueFrom, origin: FromFile) -> bytes:
    """Read a small plain file; a pipe or device could keep the reader for ever."""
    try:
        fd = os.open(origin.path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(fd, "rb") as file:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise _failure(source, origin, "is no plain file", "name one that is")
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        what = f"can't be read ({error.strerror})"
        advice = "make the file readable for trafficmgr's user"
        raise _failure(source, origin, what, advice) from None
    if len(data) > MAX_BYTES:
        raise _failure(source, origin, f"has more than {MAX_BYTES} bytes", "name a smaller file")
    return data


def _failure(source: ValueFrom, origin: ValueFrom, what: str, advice: str) -> RuntimeFailure:
    """Return the error of one value: its name and place, what follows, what to do."""
    match origin:
        case FromFile(path=path):
            place = f"file {path}"
        case FromEnv(variable=variable):
            place = f"variable {variable}"
        case FromSecret():
            place = "nowhere"
    subject = f'secret "{source.name}" ({place})' if isinstance(source, FromSecret) else place
    return RuntimeFailure(
        f"{subject} {what}. No group that needs it is started; what runs goes on. To help:"
        f" {advice}; the start is tried again."
    )
