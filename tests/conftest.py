"""Put the tests' own helpers and the demo on the path; in CI, let no test skip unnoticed."""

import os
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
sys.path[:0] = [str(TESTS), str(TESTS.parent)]

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
    """Return how many tests were skipped where none may be: with CI=true a skip is a failure."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if os.environ.get("CI") != "true" or reporter is None:
        return 0
    return len(reporter.stats.get("skipped", []))


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    if session.exitstatus == pytest.ExitCode.OK and _skips_that_count(session.config):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    skips = _skips_that_count(terminalreporter.config)
    if skips:
        terminalreporter.write_line(f"CI=true: {skips} skipped, and a skip is a failure here")
