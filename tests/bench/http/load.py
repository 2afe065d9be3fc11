"""Load: the requests that are sent, and wrk that sends them.

A browser's request has twelve fields here. In `varying` no two of a few thousand requests are the
same in path, Referer and Cookie.
"""

import json
import os
import random
import subprocess
from dataclasses import dataclass
from pathlib import Path

from bench.http.ours import HOST
from bench.http.peers import Peer
from bench.http.processes import BenchError, cpu_s

VARIANTS = 4000
CHUNK_BYTES = 16 * 1024
UPLOAD_BYTES = 1024 * 1024
_GRACE_S = 20.0
_AGENT = "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0"
_ACCEPT = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8"


def get(path: str, referer: str, cookie: str, connection: str = "keep-alive") -> bytes:
    """Return a GET with a browser's twelve fields."""
    fields = {
        "Host": HOST,
        "User-Agent": _AGENT,
        "Accept": _ACCEPT,
        "Accept-Language": "en-US,en;q=0.5",
        "Accept-Encoding": "gzip, deflate, br, zstd",
        "Connection": connection,
        "Referer": f"https://{HOST}{referer}",
        "Cookie": cookie,
        "Sec-Fetch-Dest": "document",
        "Sec-Fetch-Mode": "navigate",
        "Sec-Fetch-Site": "same-origin",
        "DNT": "1",
    }
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"GET {path} HTTP/1.1\r\n{lines}\r\n".encode()


def same() -> list[bytes]:
    cookie = "session=5b8f2c9d41e07a36; theme=dark; seen=4711"
    return [get("/products/4711?view=full", "/products", cookie)]


def varying(connection: str = "keep-alive") -> list[bytes]:
    rand = random.Random(6)  # noqa: S311  the same requests for everybody, every time
    return [
        get(
            f"/products/{rand.randrange(10**6)}?view={rand.choice(('full', 'short'))}",
            f"/search?q={rand.randrange(16**8):08x}&page={rand.randrange(50)}",
            f"session={rand.randrange(16**16):016x}; theme=dark; seen={rand.randrange(10**4)}",
            connection,
        )
        for _ in range(VARIANTS)
    ]


def new_connections() -> list[bytes]:
    return varying("close")


def large_answers() -> list[bytes]:
    return [get("/64k", "/gallery", "session=5b8f2c9d41e07a36; theme=dark; seen=4711")]


def uploads() -> list[bytes]:
    head = (
        f"POST /upload HTTP/1.1\r\nHost: {HOST}\r\nUser-Agent: {_AGENT}\r\nAccept: */*\r\n"
        "Content-Type: application/octet-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    chunk = b"%x\r\n%b\r\n" % (CHUNK_BYTES, b"x" * CHUNK_BYTES)
    return [head.encode() + chunk * (UPLOAD_BYTES // CHUNK_BYTES) + b"0\r\n\r\n"]


@dataclass
class Sample:
    """One run: requests done, and what they cost the proxy and the client."""

    requests: int
    user_us: float
    system_us: float
    per_s: float
    p50_ms: float
    p99_ms: float
    errors: int

    @property
    def cpu_us(self) -> float:
        return self.user_us + self.system_us


def write_requests(requests: list[bytes], file: Path) -> None:
    file.write_bytes(b"".join(b"%d\n%b" % (len(request), request) for request in requests))


def run(
    peer: Peer, requests: Path, *, connections: int, seconds: int, is_tls: bool = False
) -> Sample:
    """Load a proxy with as much as it takes.

    Raises:
        BenchError: wrk failed, or no request was answered.
    """
    result = requests.with_suffix(".result")
    result.unlink(missing_ok=True)
    url = f"https://127.0.0.1:{peer.https}/" if is_tls else f"http://127.0.0.1:{peer.http}/"
    script = Path(__file__).with_name("replay.lua")
    before = cpu_s(peer.pid)
    command = [
        *("wrk", "-t1", f"-c{connections}", f"-d{seconds}s"),
        *("--timeout", "10s", "-s", str(script), url),
    ]
    done = subprocess.run(
        command,
        env=os.environ | {"BENCH_REQUESTS": str(requests), "BENCH_RESULT": str(result)},
        capture_output=True,
        check=False,
        timeout=seconds + _GRACE_S,
    )
    after = cpu_s(peer.pid)
    if done.returncode or not result.exists():
        raise BenchError(f"wrk on {peer.name}: {done.stdout.decode()}{done.stderr.decode()}")
    return _sample(json.loads(result.read_bytes()), before, after, peer)


def _sample(
    said: dict[str, int], before: tuple[float, float], after: tuple[float, float], peer: Peer
) -> Sample:
    requests = said["requests"]
    if not requests:
        raise BenchError(f"{peer.name} answered nothing: {said}")
    return Sample(
        requests=requests,
        user_us=(after[0] - before[0]) * 1e6 / requests,
        system_us=(after[1] - before[1]) * 1e6 / requests,
        per_s=requests * 1e6 / said["duration_us"],
        p50_ms=said["p50_us"] / 1e3,
        p99_ms=said["p99_us"] / 1e3,
        errors=sum(said[kind] for kind in ("status", "connect", "read", "write", "timeout")),
    )
