"""The five versions of the demo's app, as images: v3 never becomes healthy."""

from pathlib import Path

from demo.base import ENV
from demo.builder import Image, Layer

BROKEN = "v3"

_APP = Path(__file__).parent / "app" / "app.py"


def image_of(version: str, layers: tuple[Layer, ...] = ()) -> Image:
    """Return the image of a version: the app, and files that say which version it is.

    Args:
        version: "v1" to "v5".
        layers: What is below it: `demo.base` for an engine; nothing for process mode, where the
            host's Python runs it.
    """
    files = {"app/app.py": _APP.read_bytes(), "app/version": f"{version}\n".encode()}
    if version == BROKEN:
        files["app/broken"] = b"on purpose\n"
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
