"""What the Dockerfile needs on a machine without a network, and compose.yaml as Docker has it.

The base is this host's own Python (`demo.base`) on busybox, with the pip of this environment and a
wheel of every package that trafficmgr needs, packed again from where it is installed. trafficmgr's
own wheel is packed from the tree by what pyproject.toml says: what is not named there is not in it.
"""

import io
import re
import sys
import tomllib
import zipfile
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml
from docker import APIClient
from docker.types import LogConfig
from packaging.requirements import Requirement

from demo import base
from demo.builder import File, Image, Layer
from support.docker_images import busybox

ROOT = Path(__file__).parents[2]
COMPOSE = ROOT / "config" / "compose.yaml"
INSTALL = "--no-index -f /wheels trafficmgr"
"""The Dockerfile's INSTALL for `base_image`."""

_NOT_IN_A_WHEEL = {"RECORD", "INSTALLER", "REQUESTED", "direct_url.json"}
_VARIABLE = re.compile(r"\$\{(\w+)(?::([-?])([^}]*))?\}")


# -- the base -------------------------------------------------------------------------------------


def base_image() -> Image:
    """Return the Dockerfile's BASE: Python, pip, a shell, and wheels at /wheels."""
    files: dict[str, bytes | File] = {
        **{f"wheels/{name}": content for name, content in _wheels()},
        **{
            f"usr/{sys.platlibdir}/python{base.VERSION}/site-packages/{name}": content
            for name, content in _content(metadata.distribution("pip"))
        },
    }
    for path in _libraries():
        files[str(path).removeprefix("/")] = File(path.read_bytes(), mode=0o755)
    layers = (busybox(), base.layer(), Layer.of_files(files, packed=False))
    return Image(layers=layers, config={"Env": ["PATH=/usr/bin:/bin", "LANG=C.UTF-8"]})


def _libraries() -> list[Path]:
    """Return the shared libraries of the packages' extensions, and of threads that are ended."""
    names = _needed(_project()["project"]["dependencies"])
    found = [metadata.distribution(name) for name in names]
    extensions = [
        Path(str(one.locate_file(path)))
        for one in found
        for path in one.files or ()
        if path.suffix == ".so"
    ]
    return base._shared_libraries(*extensions)


def _wheels() -> Iterator[tuple[str, bytes]]:
    project = _project()
    yield _own_wheel(project)
    for name in sorted(_needed(project["project"]["dependencies"])):
        found = metadata.distribution(name)
        tags = re.findall(r"^Tag: (.+)$", found.read_text("WHEEL") or "", re.MULTILINE)
        assert tags, f"{name} was not installed from a wheel"
        tag = max(tags)  # py3 rather than py2
        yield _wheel(found.name, found.version, tag, dict(_content(found)))


def _project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))


def _needed(requirements: list[str]) -> set[str]:
    """Return the names of what is required, and of what that requires."""
    names: set[str] = set()
    wanted = [Requirement(text) for text in requirements]
    while wanted:
        one = wanted.pop()
        is_for_us = one.marker is None or one.marker.evaluate({"extra": ""})
        if is_for_us and one.name.lower() not in names:
            names.add(one.name.lower())
            wanted += map(Requirement, metadata.distribution(one.name).requires or ())
    return names


def _content(found: metadata.Distribution) -> Iterator[tuple[str, bytes]]:
    """Yield (path, content) of what a package has installed, without its programs."""
    for path in found.files or ():
        is_ours = ".." not in path.parts and "__pycache__" not in path.parts
        if is_ours and path.name not in _NOT_IN_A_WHEEL:
            yield str(path), path.read_binary()


def _own_wheel(project: dict[str, Any]) -> tuple[str, bytes]:
    about, tool = project["project"], project["tool"]["setuptools"]
    root = ROOT / "trafficmgr"
    patterns = ("**/*.py", *tool["package-data"]["trafficmgr"])
    paths = {path for pattern in patterns for path in root.glob(pattern) if path.is_file()}
    needs = "".join(f"Requires-Dist: {one}\n" for one in about["dependencies"])
    scripts = "".join(f"{name} = {where}\n" for name, where in about["scripts"].items())
    info = f"trafficmgr-{about['version']}.dist-info"
    head = f"Metadata-Version: 2.1\nName: trafficmgr\nVersion: {about['version']}\n"
    tag = "Root-Is-Purelib: true\nTag: py3-none-any\n"
    files = {str(path.relative_to(ROOT)): path.read_bytes() for path in sorted(paths)}
    files |= {
        f"{info}/METADATA": (head + needs).encode(),
        f"{info}/WHEEL": f"Wheel-Version: 1.0\nGenerator: tests\n{tag}".encode(),
        f"{info}/entry_points.txt": f"[console_scripts]\n{scripts}".encode(),
    }
    return _wheel("trafficmgr", about["version"], "py3-none-any", files)


def _wheel(name: str, version: str, tag: str, files: Mapping[str, bytes]) -> tuple[str, bytes]:
    """Return a wheel's name and bytes."""
    buffer = io.BytesIO()
    info = next(path for path in files if path.endswith(".dist-info/METADATA"))
    record = info.replace("METADATA", "RECORD")
    with zipfile.ZipFile(buffer, "w") as archive:  # stored: it is unpacked in a moment
        for path, content in files.items():
            archive.writestr(path, content)
        archive.writestr(record, "".join(f"{path},,\n" for path in (*files, record)))
    safe = re.sub(r"[-_.]+", "_", name)
    return f"{safe}-{version}-{tag}.whl", buffer.getvalue()


# -- compose.yaml ---------------------------------------------------------------------------------


def composed(variables: Mapping[str, str]) -> dict[str, Any]:
    """Return the service of compose.yaml, with its variables filled in as compose does.

    Raises:
        KeyError: One is missing that must be given.
    """

    def value(found: re.Match[str]) -> str:
        name, kind, text = found.groups()
        return variables[name] if kind != "-" else variables.get(name) or text

    text = "\n".join(
        line for line in COMPOSE.read_text("utf-8").splitlines() if not line.startswith("#")
    )
    document = yaml.safe_load(_VARIABLE.sub(value, text))
    service: dict[str, Any] = document["services"]["trafficmgr"]
    return service


def create(client: APIClient, service: dict[str, Any], image: str) -> str:
    """Create the container of a service and return its id; each of its keys must be known here."""
    rest = dict(service)
    for key in ("image", "build", "stop_grace_period"):  # how it is made, and how long a stop takes
        del rest[key]
    name = rest.pop("container_name")
    environment = rest.pop("environment")
    logging = rest.pop("logging")
    host = client.create_host_config(
        network_mode=rest.pop("network_mode"),
        group_add=rest.pop("group_add"),
        binds=rest.pop("volumes"),
        restart_policy={"Name": rest.pop("restart")},
        log_config=LogConfig(type=logging["driver"], config=logging["options"]),
        init=rest.pop("init"),
        read_only=rest.pop("read_only"),
        tmpfs=rest.pop("tmpfs"),
        cap_drop=rest.pop("cap_drop"),
        security_opt=rest.pop("security_opt"),
    )
    assert not rest, f"compose.yaml has keys that the test does not know: {sorted(rest)}"
    made = client.create_container(image, name=name, environment=environment, host_config=host)
    return str(made["Id"])
