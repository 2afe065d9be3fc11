"""A base image made of this host's own Python, for engines that give a container its files only.

    image = Image(files={...}, layers=(base.layer(),), config={"Env": base.ENV, ...})

Nothing is pulled and no Dockerfile is run: one layer holds the interpreter that runs this page, its
standard library and the shared libraries that these need. The library is one zip of compiled
modules beside its extension modules: a few files instead of two thousand to unpack for every image,
and nothing to compile at each start of a container, which could not keep the result.

The layer is made once and kept below demo/.work; the same host gives the same digest. Process mode
does not need it: there a bare `python3` is looked up on the host.
"""

import argparse
import gzip
import hashlib
import importlib.util
import io
import json
import marshal
import os
import platform
import re
import subprocess
import sys
import sysconfig
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

from demo.builder import TAR, File, Layer, sha256, tar_of

ENV = ("PATH=/usr/bin", "LANG=C.UTF-8")
"""What an image with this layer says about its environment."""

CACHE = Path(__file__).parent / ".work"

LIBRARY = Path(sysconfig.get_path("stdlib"))
EXTENSIONS = LIBRARY / "lib-dynload"
VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"

_NOT_IN_A_SERVICE = frozenset(
    {"site-packages", "dist-packages", "__pycache__", "test", "tests", "idlelib", "tkinter"}
    | {"turtledemo", "ensurepip", "lib2to3", "pydoc_data", "distutils", "lib-dynload"}
)
"""Folders of the standard library that a program in a container has no use for."""

_EXTENSION_WITHOUT_USE = re.compile(r"_?(tkinter|test|xx|curses|readline|gdbm|dbm|nis|ctypes_test)")
_LIBRARY_LINE = re.compile(r"(/\S+) \(0x")
_OLDEST_DATE = (1980, 1, 1, 0, 0, 0)


class NoBaseError(Exception):
    """There is no base image to be had on this machine; the text says why."""


def layer() -> Layer:
    """Return the layer, made or remembered.

    Raises:
        NoBaseError: This host's Python can't be taken along.
    """
    kept = CACHE / f"base-{_fingerprint()}.tar.gz"
    if not kept.exists():
        CACHE.mkdir(exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=CACHE, delete=False) as half:
            half.write(gzip.compress(tar_of(files()), compresslevel=1, mtime=0))
        for older in CACHE.glob("base-*.tar.gz"):
            older.unlink(missing_ok=True)
        Path(half.name).replace(kept)
    blob = kept.read_bytes()
    return Layer(blob, f"{TAR}+gzip", sha256(gzip.decompress(blob)))


def files() -> dict[str, bytes | File]:
    """Return everything in it: name inside the image -> content.

    Raises:
        NoBaseError: This host's Python can't be taken along.
    """
    program = Path(sys.executable).resolve()
    if not program.is_file() or not (LIBRARY / "os.py").is_file():
        raise NoBaseError(
            f"the base image can't be made: {program} or its standard library {LIBRARY} is not a "
            "plain file or folder. The demo runs without Docker. Use a Python that is installed "
            "as files: PYTHON=/path/to/python3."
        )
    home = f"usr/{sys.platlibdir}/python{VERSION}"
    extensions = list(_extensions())
    made: dict[str, bytes | File] = {
        "usr/bin/python3": File(program.read_bytes(), mode=0o755),
        f"usr/{sys.platlibdir}/python{VERSION.replace('.', '')}.zip": _library(),
        f"{home}/os.py": (LIBRARY / "os.py").read_bytes(),  # by this file Python finds its home
        "tmp": File(mode=0o1777, is_folder=True),
    }
    for path in extensions:
        made[f"{home}/lib-dynload/{path.name}"] = File(path.read_bytes(), mode=0o755)
    for path in _shared_libraries(program, *extensions):
        made[str(path).removeprefix("/")] = File(path.read_bytes(), mode=0o755)
    return made


# -- the standard library -------------------------------------------------------------------------


def _library() -> bytes:
    """Return the standard library as a zip of compiled modules."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:  # stored: Python reads it without zlib
        for path in sorted(_modules(LIBRARY)):
            name = path.relative_to(LIBRARY).with_suffix(".pyc")
            archive.writestr(zipfile.ZipInfo(str(name), _OLDEST_DATE), _compiled(path))
    return buffer.getvalue()


def _modules(folder: Path) -> Iterator[Path]:
    for path in folder.iterdir():
        if path.is_dir() and path.name not in _NOT_IN_A_SERVICE and path.name.isidentifier():
            yield from _modules(path)
        elif path.suffix == ".py":
            yield path


def _compiled(path: Path) -> bytes:
    """Return a module as Python keeps it: what the host has compiled already, or compiled now.

    The header says that nothing is to be compared with a source (PEP 552): there is none.
    """
    header = importlib.util.MAGIC_NUMBER + (1).to_bytes(4, "little") + bytes(8)
    cached = Path(importlib.util.cache_from_source(str(path), optimization=""))
    if cached.is_file() and _is_of(cached.read_bytes()[:16], path):
        return header + cached.read_bytes()[16:]
    code = compile(path.read_bytes(), str(path), "exec", dont_inherit=True)
    return header + marshal.dumps(code)


def _is_of(header: bytes, source: Path) -> bool:
    """Whether a compiled module's header says that it was made of this source."""
    about = source.stat()
    wanted = (int(about.st_mtime) & 0xFFFFFFFF, about.st_size & 0xFFFFFFFF)
    written = b"".join(number.to_bytes(4, "little") for number in (0, *wanted))
    return header == importlib.util.MAGIC_NUMBER + written


# -- what is no Python ----------------------------------------------------------------------------


def _extensions() -> Iterator[Path]:
    for path in sorted(EXTENSIONS.glob("*.so")):
        if not _EXTENSION_WITHOUT_USE.match(path.name):
            yield path


LOADED_LATER = "libgcc_s.so.1"
"""What the C library loads by itself when a thread is ended; no program names it."""


def _shared_libraries(*programs: Path) -> list[Path]:
    """Return the libraries that the dynamic linker would load, each where it looks for it."""
    try:
        told = subprocess.run(
            ["ldd", *map(str, programs)],  # noqa: S607  wherever the C library has put it
            capture_output=True,
            text=True,
            check=False,
        ).stdout
    except OSError as error:
        raise NoBaseError(
            f"the base image can't be made: ldd did not run ({error}), so the libraries that "
            "Python needs are not known. The demo runs without Docker. Install ldd (libc-bin)."
        ) from error
    found = {Path(path) for path in _LIBRARY_LINE.findall(told)}
    beside = {path.parent / LOADED_LATER for path in found}
    return sorted(found | {path for path in beside if path.is_file()})


def _fingerprint() -> str:
    """Return what changes when this host's Python does, or this page."""
    program = Path(sys.executable).resolve()
    about = [platform.machine(), sys.version, str(program), str(LIBRARY)]
    for path in (program, LIBRARY / "os.py", EXTENSIONS, Path(__file__)):
        stat = os.stat(path)  # noqa: PTH116  one missing is told by `files`
        about += [str(stat.st_size), str(stat.st_mtime_ns)]
    return hashlib.sha256(json.dumps(about).encode()).hexdigest()[:16]


def main() -> None:
    """Say what is in the layer and how large it is."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.parse_args()
    found = files()
    sizes = {name: len(v if isinstance(v, bytes) else v.content) for name, v in found.items()}
    for name, size in sorted(sizes.items(), key=lambda pair: -pair[1])[:12]:
        print(f"{size / 1e6:8.2f} MB  {name}")
    print(f"{sum(sizes.values()) / 1e6:8.2f} MB  in {len(sizes)} files")
    print(f"{len(layer().blob) / 1e6:8.2f} MB  as a layer")


if __name__ == "__main__":
    main()
