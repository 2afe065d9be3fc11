"""Put the tests' own helpers and the demo on the path; in CI, let no test skip unnoticed."""

import os
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
sys.path[:0] = [str(TESTS), str(TESTS.parent)]

GAP = "a gap of this runtime: "
"""How the reason of a skip begins where a runtime says that it can't give a behaviour."""

pytest_plugins = ["support.dockerd", "support.docker_images"]  # fixtures that all folders share


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--every-point",
        action="store_true",
        help="tests/processes/test_kill_anywhere.py: kill at every single point, not a sample",
    )
    parser.addoption(
        "--seeds", type=int, default=2000, help="tests/simulation: how many histories to run"
    )
    parser.addoption("--seed", type=int, help="tests/simulation: tell the history of this seed")


def _skips_that_count(config: pytest.Config) -> int:
    """Return how many tests were skipped where none may be: with CI=true a skip is a failure.

    What a runtime can't give is in docs/runtimes.md, and no lack of this machine.
    """
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if os.environ.get("CI") != "true" or reporter is None:
        return 0
    skipped = reporter.stats.get("skipped", [])
    return len([one for one in skipped if GAP not in str(one.longrepr)])


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    if session.exitstatus == pytest.ExitCode.OK and _skips_that_count(session.config):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    skips = _skips_that_count(terminalreporter.config)
    if skips:
        terminalreporter.write_line(f"CI=true: {skips} skipped, and a skip is a failure here")
