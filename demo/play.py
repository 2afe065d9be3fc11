"""The demo: a web app in six versions, users all the while, and not one failed request.

But for those that a bad release fails on purpose, until its gates catch it; they are counted apart.

    python -m demo.play [--runtime docker] [--quick] [--json] [--keep]   (./demo/run makes .venv)

Real images go to a real registry, `trafficmgr run` does the rest, with plain processes or with a
Docker Engine (`demo.engine` says which one). See `demo.story` for what happens and `demo.judge` for
what must be true of it. With --json the last line is one JSON object. Exit code 0 only if every
check held. Everything is in a work folder, which is removed at the end unless --keep is given or
something went wrong.
"""

import argparse
import asyncio
import shutil
import signal
import sys
import tempfile
from pathlib import Path

from demo import base, judge, receipt
from demo.engine import Engine, free_pool
from demo.house import DemoError
from demo.processes import end_all, wait_until_gone
from demo.settings import DemoSettings, OnDocker, prepare
from demo.story import Story
from demo.view import View

GONE_WITHIN_S = 5.0
"""How long the last processes may take to end after `trafficmgr stop --groups` has returned."""


def options() -> argparse.Namespace:
    """Return what was asked for on the command line."""
    parser = argparse.ArgumentParser(prog="demo/run", description="The main job on real input.")
    parser.add_argument("--quick", action="store_true", help="shorter holds, ends within 60 s")
    parser.add_argument("--runtime", choices=("embedded", "docker"), default="embedded")
    parser.add_argument("--json", action="store_true", help="the last line is one JSON object")
    parser.add_argument("--keep", action="store_true", help="keep the work folder")
    return parser.parse_args()


async def play(work: Path, settings: DemoSettings, engine: Engine | None, *, json: bool) -> bool:
    """Play the demo in a work folder and show its receipt; return whether all went well."""
    view = View(plain=json)
    if engine:
        view.say(f"{await engine.version()} at {engine.host}")
    story = Story(work, settings, view, (base.layer(),) if engine else ())
    trouble = None
    try:
        await story.play()
    except DemoError as error:
        trouble = str(error)
    except asyncio.CancelledError:
        trouble = "it was interrupted"
    left = await wait_until_gone(work, within_s=0.0 if trouble else GONE_WITHIN_S)
    await end_all(work)
    containers = await engine.containers_of(settings.instance()) if engine else ()
    evidence = story.evidence(left=(*left.values(), *containers))
    checks = judge.judged(evidence)
    view.show(receipt.as_text(evidence, checks, trouble))
    if json:
        print(receipt.as_json(evidence, checks, trouble), flush=True)
    return receipt.is_ok(checks, trouble)


async def run(work: Path, wanted: argparse.Namespace) -> bool:
    """Play; SIGTERM and Ctrl-C end it in order, and nothing outlives it."""
    this = asyncio.current_task()
    assert this is not None  # noqa: S101  we are in it
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, this.cancel)
    engine = await Engine.ready() if wanted.runtime == "docker" else None
    docker = OnDocker(engine.host, free_pool()) if engine else None
    settings = prepare(work, quick=wanted.quick, docker=docker)
    try:
        return await play(work, settings, engine, json=wanted.json)
    finally:
        await end_all(work)
        if engine:
            await engine.close(settings.instance(), settings.registry)


def main() -> int:
    """Run the demo; return its exit code."""
    wanted = options()
    work = Path(tempfile.mkdtemp(prefix="trafficmgr-demo-"))
    is_ok = False
    try:
        is_ok = asyncio.run(run(work, wanted))
    except (DemoError, base.NoBaseError) as error:
        print(f"demo: {error}", file=sys.stderr)
    finally:
        if is_ok and not wanted.keep:
            shutil.rmtree(work, ignore_errors=True)
        else:
            print(f"demo: kept the work folder {work}", file=sys.stderr)
    return 0 if is_ok else 1


if __name__ == "__main__":
    sys.exit(main())
