"""Names inside an image's tree, resolved by hand so that no symlink leads out of it.

An image's `/bin/sh -> /bin/busybox` means the image's own busybox. The kernel, asked for
`rootfs/bin/sh`, would take the host's; so every component is looked at, and links are followed by
reading them. An absolute link starts again at the tree's root, `..` at the root leads out, and
what leads out is refused.
"""

import errno
import os
import stat

MAX_LINKS = 40
"""As many symlinks as Linux follows for one name (path_resolution(7))."""


class OutsideError(ValueError):
    """The name leads out of the tree, or nowhere at all; the text says how."""


def components(name: str) -> list[str]:
    """Return the components of a name, without empty ones and `.`."""
    return [part for part in name.split("/") if part not in {"", "."}]


class Tree:
    """An open tree. Directories are reached by descriptor, never through a symlink."""

    def __init__(self, root: str) -> None:
        self._root = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def close(self) -> None:
        """Let go of the tree."""
        os.close(self._root)

    def real(self, parts: list[str], *, is_last_followed: bool) -> list[str]:
        """Return the same place named without symlinks and `..`; it need not exist.

        Raises:
            OutsideError: It leads out of the tree, or through too many symlinks.
        """
        todo, links = parts[::-1], 0
        done: list[str] = []
        while todo:
            part = todo.pop()
            if part == "..":
                if not done:
                    raise OutsideError("leads out of the tree")
                done.pop()
                continue
            target = self._link(done, part) if todo or is_last_followed else None
            if target is None:
                done.append(part)
                continue
            links += 1
            if links > MAX_LINKS:
                raise OutsideError(f"leads through more than {MAX_LINKS} symlinks")
            done = [] if target.startswith("/") else done
            todo += components(target)[::-1]
        return done

    def open(self, parts: list[str], *, create: bool = False) -> int:
        """Return a descriptor of the directory; the caller closes it.

        Args:
            parts: Components as `real` returned them.
            create: Make what is missing, with mode 0755.

        Raises:
            OSError: FileNotFoundError, or NotADirectoryError when something else is in the way.
        """
        fd = os.dup(self._root)
        for part in parts:
            try:
                below = _open_directory(part, fd, create=create)
            finally:
                os.close(fd)
            fd = below
        return fd

    def _link(self, directory: list[str], name: str) -> str | None:
        """Return where the symlink points, or None if it is none or does not exist."""
        try:
            fd = self.open(directory)
        except (FileNotFoundError, NotADirectoryError):
            return None
        try:
            return os.readlink(name, dir_fd=fd)
        except OSError as error:
            if error.errno in {errno.EINVAL, errno.ENOENT}:
                return None
            raise
        finally:
            os.close(fd)


def _open_directory(name: str, above: int, *, create: bool) -> int:
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        return os.open(name, flags, dir_fd=above)
    except FileNotFoundError:
        if not create:
            raise
        os.mkdir(name, 0o755, dir_fd=above)
        return os.open(name, flags, dir_fd=above)


def lstat(name: str, directory: int) -> os.stat_result | None:
    """Return what the name in the directory is, a symlink not followed; None if nothing."""
    try:
        return os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return None


def is_directory(found: os.stat_result | None) -> bool:
    """Whether `lstat` found a directory."""
    return found is not None and stat.S_ISDIR(found.st_mode)


def look_up(root: str, name: str) -> str | None:
    """Return the host's path of what the image calls `name`; None if there is no such thing."""
    tree = Tree(root)
    try:
        parts = tree.real(components(name), is_last_followed=True)
    except OutsideError:
        return None
    finally:
        tree.close()
    path = "/".join([root, *parts])
    return path if os.path.lexists(path) else None
