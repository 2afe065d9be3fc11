"""A small registry for machines without docker-registry: the distribution API over a folder.

    python demo/registry.py --port 5000 --root /tmp/registry

It takes pushes (POST, PATCH, PUT), answers pulls, HEAD and tags/list, checks every digest that it
is given, and prints one line when it is ready. No deletion, no authentication, loopback only.
Source: distribution-spec v1.1; where that is silent, what docker-registry 2.8 answers.
"""

import argparse
import asyncio
import hashlib
import json
import os
import re
import signal
import uuid
from pathlib import Path

from aiohttp import web

MAX_MANIFEST_BYTES = 4 * 1024 * 1024
_NAME = r"{name:[a-z0-9]+(?:(?:[._/]|__|-+)[a-z0-9]+)*}"
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


def problem(status: int, code: str, message: str) -> web.Response:
    """Return an error as the specification writes it."""
    return web.json_response({"errors": [{"code": code, "message": message}]}, status=status)


class Registry:
    """The handlers. Blobs are shared between repositories, as their names are their content."""

    def __init__(self, root: Path) -> None:
        self._blobs = root / "blobs"
        self._uploads = root / "uploads"
        self._repositories = root / "repositories"
        for folder in (self._blobs, self._uploads, self._repositories):
            folder.mkdir(parents=True, exist_ok=True)

    def app(self) -> web.Application:
        """Return the application that serves the API."""
        app = web.Application(client_max_size=MAX_MANIFEST_BYTES)
        upload = f"/v2/{_NAME}/blobs/uploads/{{id:[0-9a-f]{{32}}}}"
        app.add_routes(
            [
                web.get("/v2/", self.ping),
                web.post(f"/v2/{_NAME}/blobs/uploads/", self.start_upload),
                web.patch(upload, self.continue_upload),
                web.put(upload, self.finish_upload),
                web.get(f"/v2/{_NAME}/blobs/{{digest}}", self.get_blob),
                web.put(f"/v2/{_NAME}/manifests/{{reference}}", self.put_manifest),
                web.get(f"/v2/{_NAME}/manifests/{{reference}}", self.get_manifest),
                web.get(f"/v2/{_NAME}/tags/list", self.list_tags),
            ]
        )
        return app

    async def ping(self, _request: web.Request) -> web.Response:
        """Say that this is a registry."""
        return web.json_response({}, headers={"Docker-Distribution-Api-Version": "registry/2.0"})

    async def start_upload(self, request: web.Request) -> web.Response:
        """Open an upload; mounts and single-request uploads fall back to it, as they may."""
        upload = self._uploads / uuid.uuid4().hex
        upload.touch()
        return self._upload_state(request, upload, 202)

    async def continue_upload(self, request: web.Request) -> web.Response:
        """Append a chunk."""
        upload = self._uploads / request.match_info["id"]
        if not upload.exists():
            return problem(404, "BLOB_UPLOAD_UNKNOWN", "no such upload")
        await _append(upload, request)
        return self._upload_state(request, upload, 202)

    async def finish_upload(self, request: web.Request) -> web.Response:
        """Append the last chunk, check the digest, and give the blob its name."""
        upload = self._uploads / request.match_info["id"]
        digest = request.query.get("digest", "")
        if not upload.exists():
            return problem(404, "BLOB_UPLOAD_UNKNOWN", "no such upload")
        await _append(upload, request)
        if digest != await asyncio.to_thread(_digest_of_file, upload):
            upload.unlink()
            return problem(400, "DIGEST_INVALID", "the content has another digest")
        upload.replace(self._blob(digest))
        location = f"/v2/{request.match_info['name']}/blobs/{digest}"
        return web.Response(
            status=201, headers={"Location": location, "Docker-Content-Digest": digest}
        )

    async def get_blob(self, request: web.Request) -> web.StreamResponse:
        """Answer GET and HEAD of a blob."""
        digest = request.match_info["digest"]
        if not _DIGEST.fullmatch(digest) or not self._blob(digest).exists():
            return problem(404, "BLOB_UNKNOWN", "blob unknown to registry")
        return web.FileResponse(
            self._blob(digest),
            headers={"Docker-Content-Digest": digest, "Content-Type": "application/octet-stream"},
        )

    async def put_manifest(self, request: web.Request) -> web.Response:
        """Store a manifest under its digest and, if it was pushed by tag, under the tag."""
        name, reference = request.match_info["name"], request.match_info["reference"]
        body = await request.read()
        digest = "sha256:" + hashlib.sha256(body).hexdigest()
        if ":" in reference and reference != digest:
            return problem(400, "DIGEST_INVALID", "the content has another digest")
        if ":" not in reference and not _TAG.fullmatch(reference):
            return problem(400, "TAG_INVALID", "not a tag")
        missing = self._missing(name, body)
        if missing:
            return problem(400, "MANIFEST_BLOB_UNKNOWN", missing)
        _write(self._blob(digest), body)
        _write(self._manifests(name) / digest.partition(":")[2], request.content_type.encode())
        if reference != digest:
            _write(self._tags(name) / reference, digest.encode())
        location = f"/v2/{name}/manifests/{digest}"
        return web.Response(
            status=201, headers={"Location": location, "Docker-Content-Digest": digest}
        )

    async def get_manifest(self, request: web.Request) -> web.Response:
        """Answer GET and HEAD of a manifest, by tag or by digest."""
        name, reference = request.match_info["name"], request.match_info["reference"]
        digest = self._resolve(name, reference)
        if digest is None:
            return problem(404, "MANIFEST_UNKNOWN", "manifest unknown")
        media_type = (self._manifests(name) / digest.partition(":")[2]).read_text()
        if media_type not in ",".join(request.headers.getall("Accept", [])):
            return problem(404, "MANIFEST_UNKNOWN", f"accept header does not support {media_type}")
        return web.Response(
            body=self._blob(digest).read_bytes(),
            headers={"Content-Type": media_type, "Docker-Content-Digest": digest},
        )

    async def list_tags(self, request: web.Request) -> web.Response:
        """Answer the names of all tags, in order."""
        name = request.match_info["name"]
        if not self._tags(name).is_dir():
            return problem(404, "NAME_UNKNOWN", "repository name not known to registry")
        tags = sorted(path.name for path in self._tags(name).iterdir() if _TAG.fullmatch(path.name))
        return web.json_response({"name": name, "tags": tags})

    def _upload_state(self, request: web.Request, upload: Path, status: int) -> web.Response:
        end = max(0, upload.stat().st_size - 1)
        location = f"/v2/{request.match_info['name']}/blobs/uploads/{upload.name}"
        return web.Response(status=status, headers={"Location": location, "Range": f"0-{end}"})

    def _missing(self, name: str, body: bytes) -> str:
        """Say what a manifest points to that is not here; empty if all is well."""
        try:
            parsed = json.loads(body)
            pointed = [*parsed.get("layers", []), parsed.get("config")]
            blobs = [entry["digest"] for entry in pointed if entry]
            children = [entry["digest"] for entry in parsed.get("manifests", [])]
        except (ValueError, AttributeError, KeyError, TypeError):
            return "not a manifest"
        lost = [digest for digest in blobs if not self._has_blob(digest)]
        lost += [digest for digest in children if self._resolve(name, digest) is None]
        return f"unknown: {', '.join(lost)}" if lost else ""

    def _resolve(self, name: str, reference: str) -> str | None:
        if _TAG.fullmatch(reference):
            tag = self._tags(name) / reference
            return tag.read_text() if tag.is_file() else None
        known = _DIGEST.fullmatch(reference)
        manifest = self._manifests(name) / reference.partition(":")[2]
        return reference if known and manifest.is_file() else None

    def _has_blob(self, digest: str) -> bool:
        return bool(_DIGEST.fullmatch(digest)) and self._blob(digest).exists()

    def _blob(self, digest: str) -> Path:
        return self._blobs / digest.partition(":")[2]

    def _tags(self, name: str) -> Path:
        return self._repositories / name / "_tags"

    def _manifests(self, name: str) -> Path:
        return self._repositories / name / "_manifests"


async def _append(upload: Path, request: web.Request) -> None:
    with upload.open("ab") as file:
        async for chunk in request.content.iter_chunked(1024 * 1024):
            file.write(chunk)


def _digest_of_file(path: Path) -> str:
    with path.open("rb") as file:
        return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()


def _write(path: Path, body: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex}~")
    temporary.write_bytes(body)
    temporary.replace(path)


async def serve(port: int, root: Path) -> None:
    """Serve until SIGTERM or SIGINT."""
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    runner = web.AppRunner(Registry(root).app(), access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    print(f"registry ready on http://127.0.0.1:{runner.addresses[0][1]}", flush=True)
    await ended.wait()
    await runner.cleanup()


def main() -> None:
    """Read the command line and serve."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--port", type=int, required=True, help="0 picks a free one")
    parser.add_argument("--root", type=Path, required=True, help="where images are kept")
    options = parser.parse_args()
    os.umask(0o077)
    asyncio.run(serve(options.port, options.root))


if __name__ == "__main__":
    main()
