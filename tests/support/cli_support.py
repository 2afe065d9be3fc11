"""Running the command line in this process and as a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

from typer.testing import CliRunner, Result

from trafficmgr.cli.main import app

ARGV = (sys.executable, "-m", "trafficmgr")

DEADLINE_S = 30

VALID_CONFIG = """\
state_dir: ./here
listen:
  dns: ["127.0.0.1:5300"]
  http: ["127.0.0.1:8080"]
workers: 2
zones:
  - {name: apps.test, ns: [ns1.apps.test]}
endpoints:
  shop:
    hosts: [shop.apps.test]
    group:
      replicas: 2
      containers:
        - {name: web, image: "127.0.0.1:5000/shop/web:stable", ports: [8080]}
"""


def invoke(*arguments: object, env: dict[str, str] | None = None) -> Result:
    """Run a verb in this process."""
    return CliRunner().invoke(app, [str(one) for one in arguments], env=env)


def process(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run a verb as a process of its own."""
    return subprocess.run(
        [*ARGV, *map(str, arguments)],
        capture_output=True,
        check=False,
        text=True,
        timeout=DEADLINE_S,
        cwd=cwd,
        env=environment(),
    )


def environment() -> dict[str, str]:
    """Return an environment in which this tree is found and no service is pointed to."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("TRAFFICMGR_")}
    return {**kept, "PYTHONPATH": os.pathsep.join(sys.path)}


def broken_config() -> str:
    """Return a config with three mistakes."""
    unknown_key = VALID_CONFIG.replace("replicas: 2", "replica: 2")
    bad_port = unknown_key.replace("127.0.0.1:8080", "127.0.0.1:99999")
    return bad_port.replace("hosts: [shop.apps.test]", "hosts: [shop.apps.test]\n    ttl: soon")
