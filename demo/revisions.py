"""Which revision is which version: the service speaks of the one, people of the other.

A revision's id is the hash of what runs (DESIGN 2). The demo knows the configuration and the
digests that it pushes, so it can tell the ids before the service does.
"""

from pathlib import Path

from trafficmgr.config.load import load
from trafficmgr.core.template import ImageDigest, revision_id


class Revisions:
    """Revision ids that were learnt, and their versions."""

    def __init__(self) -> None:
        self._version_of: dict[str, str] = {}

    def learn(self, version: str, digest: str, config: Path) -> None:
        """Remember the revisions that endpoints of a config have once they run this image."""
        for endpoint in load(config).endpoints.values():
            template = endpoint.settings.template
            images = tuple(
                ImageDigest(
                    container=container.name,
                    repository=container.image,
                    digest=digest,
                    platform_digest=digest,
                )
                for container in template.containers
            )
            self._version_of[revision_id(template, images)] = version

    def known(self) -> tuple[str, ...]:
        """Return the ids that were learnt, oldest first."""
        return tuple(self._version_of)

    def version_of(self, revision: str | None) -> str:
        """Return the version of a revision id, whole or short; an unknown one's own beginning."""
        if not revision:
            return ""
        known = (v for id_, v in self._version_of.items() if id_.startswith(revision))
        return next(known, revision[:8])
