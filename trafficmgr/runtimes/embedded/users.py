"""Who a container runs as: `user` of the config, as numbers.

A name means what the image's /etc/passwd and /etc/group say, else this host's. A number needs no
entry. Without a group it is the user's own there, else the one of the same number, which is
nobody's (Docker takes root's; here files of the host would be open to it). There are no further
groups.

Only root can become someone else. The image's own USER is not looked at: its processes run as we
do, since its number would mean some person of this host.
"""

import os
from pathlib import Path

from trafficmgr.core.noun import Noun
from trafficmgr.runtimes.embedded import inside


class User(Noun):
    """A user of this host by number."""

    uid: int
    gid: int
    home: str = "/"


class UnknownUserError(ValueError):
    """There is no such user or group; the text names it."""


def resolve(written: str, rootfs: str) -> User | None:
    """Return who a container runs as; None is ourselves: nothing is written, or we are not root.

    Args:
        written: NAME or NUMBER, or two of them with a colon between.
        rootfs: The image's tree.

    Raises:
        UnknownUserError: A name is known neither in the image nor here.
    """
    if not written or os.geteuid() != 0:
        return None
    name, _, group = written.partition(":")
    entry = _entry(name, rootfs, "/etc/passwd")
    if entry is None and not name.isdecimal():
        raise UnknownUserError(f'user "{name}"')
    uid = int(entry[2]) if entry is not None else int(name)
    gid = int(entry[3]) if entry is not None else uid
    home = entry[5] if entry is not None else "/"
    return User(uid=uid, gid=_gid(group, rootfs) if group else gid, home=home or "/")


def _gid(group: str, rootfs: str) -> int:
    entry = _entry(group, rootfs, "/etc/group")
    if entry is not None:
        return int(entry[2])
    if not group.isdecimal():
        raise UnknownUserError(f'group "{group}"')
    return int(group)


def _entry(word: str, rootfs: str, file: str) -> list[str] | None:
    """Return the fields of the entry with this name or number, the image's first."""
    for path in (inside.look_up(rootfs, file), file):
        for line in _lines(path):
            fields = line.split(":")
            if len(fields) >= _FIELDS[file] and word in {fields[0], fields[2]}:
                return fields
    return None


_FIELDS = {"/etc/passwd": 7, "/etc/group": 4}
"""passwd(5), group(5)."""


def _lines(path: str | None) -> list[str]:
    try:
        return Path(path).read_text(errors="replace").splitlines() if path is not None else []
    except OSError:
        return []
