"""The five versions of the demo's app, as images: v3 never becomes healthy."""

from pathlib import Path

from demo.builder import Image

BROKEN = "v3"

_APP = Path(__file__).parent / "app" / "app.py"


def image_of(version: str) -> Image:
    """Return the image of a version: the app, and files that say which version it is."""
    files = {"app/app.py": _APP.read_bytes(), "app/version": f"{version}\n".encode()}
    if version == BROKEN:
        files["app/broken"] = b"on purpose\n"
    return Image(
        files=files,
        # -I -S: nothing of the host's site-packages, and a start in a fraction of the time
        config={"Cmd": ["python3", "-I", "-S", "app.py"], "WorkingDir": "/app"},
    )
