"""The base image: this host's Python, whole enough to run by itself, and made once."""

import gzip
import io
import json
import subprocess
import tarfile
from pathlib import Path

import pytest

from demo import base
from demo.builder import Image, Layer

LARGEST_BYTES = 70_000_000


@pytest.fixture(scope="module")
def layer() -> Layer:
    return base.layer()


@pytest.mark.processes
def test_its_python_finds_its_library_inside_the_image(layer: Layer, tmp_path: Path) -> None:
    with tarfile.open(fileobj=io.BytesIO(gzip.decompress(layer.blob))) as tar:
        tar.extractall(tmp_path, filter="data")
    say = (
        "import asyncio, http.server, json, ssl, sys; print(json.dumps([sys.path, json.__file__]))"
    )

    answer = subprocess.run(
        [str(tmp_path / "usr/bin/python3"), "-E", "-S", "-c", say],
        env={},
        cwd=tmp_path,
        capture_output=True,
        check=True,
        timeout=60,
    )

    path, module = json.loads(answer.stdout)
    assert all(entry.startswith(f"{tmp_path}/usr/") for entry in path if entry)
    assert ".zip/" in module


def test_it_is_small_and_has_the_libraries_that_it_needs(layer: Layer) -> None:
    tar = gzip.decompress(layer.blob)
    with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
        names = {entry.name for entry in archive}

    assert len(tar) < LARGEST_BYTES
    assert any(Path(name).name.startswith("ld-linux") for name in names)
    assert any(Path(name).name.startswith("libc.so") for name in names)
    assert not [name for name in names if "/test" in name or "tkinter" in name]


def test_the_second_time_it_is_what_was_kept(layer: Layer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "files", lambda: pytest.fail("made again"))

    assert base.layer() == layer


def test_an_image_has_it_below_its_own_files(layer: Layer) -> None:
    image = Image(files={"app/x": b""}, layers=(layer,), config={"User": "1000"})

    config = json.loads(image.config_json)
    manifest = json.loads(image.manifest)

    assert config["rootfs"]["diff_ids"][0] == layer.diff_id
    assert len(manifest["layers"]) == 2
    assert config["config"]["User"] == "1000"


def test_a_python_that_is_not_there_is_told_as_a_sentence(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(base, "LIBRARY", tmp_path)

    with pytest.raises(base.NoBaseError, match=r"can't be made: .* is not a plain file or folder"):
        base.files()
