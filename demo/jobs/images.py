"""The images of the three programs: each has its own page, what it imports, and its version.

    python -m demo.jobs.images 127.0.0.1:5001 v1 [--base]      builds and pushes all three

With --base this host's Python is in them, as Docker needs it.
"""

import argparse
import asyncio
from pathlib import Path

from demo import base
from demo.builder import Image, Layer, push

PROGRAMS = {
    "web": ("service.py", "store.py", "web.py"),
    "worker": ("service.py", "worker.py"),
    "logs": ("logs.py", "service.py"),
}
"""Name of a program, its container and its repository (`jobs/NAME`) -> its pages."""

_HERE = Path(__file__).parent


def image_of(program: str, version: str, layers: tuple[Layer, ...] = ()) -> Image:
    """Return the image of a program in a version.

    Args:
        program: One of PROGRAMS.
        version: What it answers as X-Version.
        layers: What is below it: `demo.base` for an engine; nothing for process mode, where the
            host's Python runs it.
    """
    pages = {f"app/demo/jobs/{page}": (_HERE / page).read_bytes() for page in PROGRAMS[program]}
    return Image(
        files={**pages, "app/version": f"{version}\n".encode()},
        config={
            # -S: nothing of the host's site-packages, and a start in a fraction of the time
            "Cmd": ["python3", "-E", "-S", "-m", f"demo.jobs.{program}"],
            "WorkingDir": "/app",
            **({"Env": list(base.ENV)} if layers else {}),
        },
        layers=layers,
    )


async def push_all(registry: str, version: str, layers: tuple[Layer, ...] = ()) -> None:
    """Push all three under the tag that jobs.yaml follows; the front comes last."""
    for program in reversed(PROGRAMS):
        image = image_of(program, version, layers)
        await push(f"http://{registry}", f"jobs/{program}", "stable", image)


def main() -> None:
    """Read the command line and push."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("registry", help="where to: 127.0.0.1:5001")
    parser.add_argument("version", help="what they say they are: v1")
    parser.add_argument("--base", action="store_true", help="with this host's Python in them")
    options = parser.parse_args()
    layers = (base.layer(),) if options.base else ()
    asyncio.run(push_all(options.registry, options.version, layers))
    print(f"pushed {options.version} of {', '.join(PROGRAMS)} to {options.registry}")


if __name__ == "__main__":
    main()
