"""Images for tests on a real engine, made here without any base, and pulled by digest.

They are a static busybox with all its applets (Debian's busybox-static) and, on top of it, the
obedient application: `APP` of runtime_support.py in shell. It listens at PORT on every address
and does what one line per connection tells it; the answer is one line, too:

    say TEXT | exit N | kill N | ignore         the container's main process does it
    child [daemon]                              it gets a child, which prints "child PID"
    env | ids | cwd | whoami                    JSON, JSON, a path, "UID:GID"
    get URL | read PATH | write PATH TEXT       what is there, or the tool's complaint
    hog BYTES [child]                           it, or a child of it, takes and holds memory, for a
                                                moment twice as much
    fork N                                      N processes for 5 s; how many there are then

Without a PORT it only waits to be ended.
"""

import asyncio
import subprocess
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from demo.builder import File, Image, Index, Layer, push
from support.registry_support import docker_registry, need
from trafficmgr.core.template import ImageDigest

APP = b"""#!/bin/sh
# The main process: obeys what the answering side writes to a pipe, "ACK VERB REST".
echo started
orders=/tmp/orders
rm -f $orders
mkfifo $orders || exit 3
exec 3<>$orders
export MAIN=$$
[ -z "$PORT" ] || while :; do nc -ll -p "$PORT" -e sh /app/answer.sh; done &
while read -r ack verb rest <&3; do
  case $verb in
    say) echo "$rest" ;;
    exit) exit "$rest" ;;
    kill) kill -"$rest" $$ ;;
    ignore) trap '' TERM ;;
    child)
      if [ "$rest" = daemon ]; then
        (setsid sh -c 'echo child $$; exec sleep 1000000' &)
      else
        sh -c 'echo child $$; exec sleep 1000000' &
      fi ;;
    hog)
      [ -p /tmp/hold ] || mkfifo /tmp/hold
      if [ "${rest% child}" = "$rest" ]; then
        : >"$ack"
        exec awk -v "size=$rest" -f /app/hog.awk
      fi
      awk -v "size=${rest% child}" -f /app/hog.awk & ;;
  esac
  : >"$ack"
done
"""

HOG = b"""
# Not dd: it has the kernel fill its memory, which under a limit may end half done, unpunished.
BEGIN {
  text = "x"
  while (length(text) * 2 <= size) text = text text
  text = text substr(text, 1, size - length(text))
  getline < "/tmp/hold"
}
"""

ANSWER = rb"""#!/bin/sh
# One connection. What the main process must do itself is handed on, and waited for.
read -r verb rest
one_line() { tr '\n' ' ' | sed 's/ *$//'; }
ordered() {
  ack=/tmp/ack.$$
  mkfifo $ack
  echo "$ack $verb $rest" >/tmp/orders
  read -r _ <$ack
  rm -f $ack
}
case $verb in  # wget by timeout, as its own -T makes Debian's static busybox crash
  env) awk 'BEGIN {
      printf "{"
      for (name in ENVIRON) {
        value = ENVIRON[name]
        gsub(/\\/, "\\\\", value); gsub(/"/, "\\\"", value)
        gsub(/\n/, "\\n", value); gsub(/\t/, "\\t", value)
        printf "%s\"%s\": \"%s\"", comma, name, value
        comma = ", "
      }
      print "}"
    }' ;;
  ids) awk '{ printf "[%d, %d, %d, %d]\n", $1, $5, $6, $4 }' /proc/$MAIN/stat ;;
  cwd) readlink /proc/$MAIN/cwd ;;
  whoami) echo "$(id -u):$(id -g)" ;;
  get) timeout 10 wget -q -O - "$rest" 2>&1 | one_line; echo ;;
  read) cat "$rest" 2>&1 | one_line; echo ;;
  write)
    path=${rest%% *}
    (echo "${rest#* }" >"$path") 2>&1 | one_line
    echo ;;
  fork)
    sh -c 'while [ $((i += 1)) -le $0 ]; do sleep 5 & done' "$rest" 2>/dev/null
    set -- /proc/[0-9]*
    echo $# ;;
  *) ordered; echo ;;
esac
"""

_APP_CONFIG: Mapping[str, Any] = {
    "Entrypoint": ["/bin/sh"],
    "Cmd": ["/app/app.sh"],
    "Env": ["PATH=/bin", "COLOUR=green"],
    "WorkingDir": "/app",
}


@cache
def busybox() -> Layer:
    """Return a layer with busybox, its applets, two users and a /tmp."""
    program = Path(need("busybox"))
    listed = subprocess.run([program, "--list"], capture_output=True, text=True, check=True)
    applets = set(listed.stdout.split()) - {"busybox"}
    return Layer.of_files(
        {
            "bin/busybox": File(_static(program), mode=0o755),
            **{f"bin/{applet}": File(link="busybox") for applet in applets},
            "etc/passwd": b"root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000:app:/:/bin/sh\n",
            "etc/group": b"root:x:0:\napp:x:1000:\n",
            "etc/nsswitch.conf": b"hosts: files\nservices: files\n",  # it can't load a DNS resolver
            "tmp": File(mode=0o1777, is_folder=True),
        }
    )


def _static(program: Path) -> bytes:
    content = program.read_bytes()
    if b"/ld-linux" in content or b"/ld-musl" in content:
        pytest.fail(f"{program} is not static: apt-get install busybox-static")
    return content


def app_image(**config: Any) -> Image:
    """Return the obedient application; `config` overrides keys of the image's config."""
    files: dict[str, bytes | File] = {
        "app/app.sh": File(APP, mode=0o755),
        "app/answer.sh": File(ANSWER, mode=0o755),
        "app/hog.awk": HOG,
    }
    return Image(files=files, layers=(busybox(),), config={**_APP_CONFIG, **config})


class ImageShelf:
    """A registry that images are pushed to; the engine of the tests can pull from it."""

    def __init__(self, host: str, *, auth: tuple[str, str] | None = None) -> None:
        """Use the registry at this host ("127.0.0.1:5000"), with user and password if it asks."""
        self.host = host
        self._auth = auth

    def push(
        self,
        image: Image | Index,
        *,
        repository: str = "shop/web",
        tag: str = "stable",
        container: str = "web",
    ) -> ImageDigest:
        """Push the image, and return it as the image of this container."""
        url = f"http://{self.host}"
        digest = asyncio.run(push(url, repository, tag, image, auth=self._auth))
        platform = image.images[0].digest if isinstance(image, Index) else digest
        return ImageDigest(
            container=container,
            repository=f"{self.host}/{repository}",
            digest=digest,
            platform_digest=platform,
        )

    def app(self, container: str = "web", **config: Any) -> ImageDigest:
        """Push the obedient application, and return it as the image of this container."""
        return self.push(app_image(**config), repository=f"test/{container}", container=container)


@pytest.fixture(scope="session")
def image_shelf(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ImageShelf]:
    """A docker-registry that lets everyone in, for all tests on an engine."""
    need("docker-registry")
    with docker_registry(tmp_path_factory.mktemp("images")) as host:
        yield ImageShelf(host)


@pytest.fixture(scope="session")
def app_digest(image_shelf: ImageShelf) -> ImageDigest:
    """The obedient application, for a container named "web"."""
    return image_shelf.app()
