"""The images of the small examples in config/: one page of Python each."""

from pathlib import Path

from demo.base import ENV
from demo.builder import Image, Layer

PROGRAMS = {
    "site/app": "pages.py",
    "site/puller": "puller.py",
    "shop/app": "app.py",
    "shop/shipper": "shipper.py",
    "shop/monitor": "monitor.py",
    "shop/front": "front.py",
    "shop/back": "app.py",
}
"""Repository, as config/*.yaml name it -> its page."""

_HERE = Path(__file__).parent


def image_of(repository: str, layers: tuple[Layer, ...] = ()) -> Image:
    """Return the image of a repository.

    Args:
        repository: One of PROGRAMS.
        layers: What is below it: `demo.base` for an engine; nothing for process mode, where the
            host's Python runs it.
    """
    page = PROGRAMS[repository]
    files = {f"app/{page}": (_HERE / page).read_bytes(), "app/name": f"{repository}\n".encode()}
    return Image(
        files=files,
        config={
            "Cmd": ["python3", "-E", "-S", page],
            "WorkingDir": "/app",
            **({"Env": list(ENV)} if layers else {}),
        },
        layers=layers,
    )
