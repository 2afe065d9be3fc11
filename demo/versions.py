"""The six versions of the demo's app, as images.

v3 never becomes healthy. v4 does, and its health checks pass for ever; but one of its pages answers
with an error, and users come to that page as often as to each of the others.
"""

from pathlib import Path

from demo.base import ENV
from demo.builder import Image, Layer

BROKEN = "v3"
FLAWED = "v4"
OVERTAKEN = "v5"
LAST = "v6"

PAGES = ("/", "/search", "/cart", "/checkout", "/account")
"""What users ask for, each as often as the others."""

FLAWED_PAGE = "/checkout"
"""The page that v4 has broken: a fifth of all that users ask for."""

_APP = Path(__file__).parent / "app"


def image_of(version: str, layers: tuple[Layer, ...] = ()) -> Image:
    """Return the image of a version: the app, and files that say which version it is.

    Args:
        version: "v1" to "v6".
        layers: What is below it: `demo.base` for an engine; nothing for process mode, where the
            host's Python runs it.
    """
    files = {
        "app/app.py": (_APP / "app.py").read_bytes(),
        "app/migrate.py": (_APP / "migrate.py").read_bytes(),
        "app/version": f"{version}\n".encode(),
    }
    if version == BROKEN:
        files["app/broken"] = b"on purpose\n"
    if version == FLAWED:
        files["app/flawed"] = f"{FLAWED_PAGE}\n".encode()
    return Image(
        files=files,
        # -I -S: nothing of the host's site-packages, and a start in a fraction of the time
        config={
            "Cmd": ["python3", "-I", "-S", "app.py"],
            "WorkingDir": "/app",
            **({"Env": list(ENV)} if layers else {}),
        },
        layers=layers,
    )
