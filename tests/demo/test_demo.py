"""The whole demo, as a person starts it: the main job on real input, with nothing left behind."""

import asyncio
import json
import os
from pathlib import Path

import pytest

TREE = Path(__file__).parent.parent.parent
WITHIN_S = 240.0


@pytest.mark.processes
@pytest.mark.timeout(WITHIN_S + 30)
async def test_a_new_digest_reaches_users_without_one_failed_request() -> None:
    process = await asyncio.create_subprocess_exec(
        *(str(TREE / "demo" / "run"), "--quick", "--json"),
        env=dict(os.environ),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )

    try:
        output, _ = await asyncio.wait_for(process.communicate(), WITHIN_S)
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()

    text = output.decode()
    print(text)  # noqa: T201  pytest shows it with a failure, and with -rP
    assert process.returncode == 0
    receipt = json.loads(text.splitlines()[-1])
    assert receipt["ok"]
    assert receipt["failed"] == 0
    assert receipt["checks"]["v4_caught_by_gates"]
    assert receipt["v4"]["shop"]["errors"] > 0
