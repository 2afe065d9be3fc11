"""External checks: what is found, what that amounts to, and what nobody gets to read."""

import asyncio
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import uvloop
from support.controller_support import NAME, Clock, eventually, settings
from support.web_support import Replies, nobody, serving, speaking

from trafficmgr.controller import checks
from trafficmgr.controller.checks import Asker, Finding, Inquiry, Subject, ask_json, run_command
from trafficmgr.controller.ports import boottime
from trafficmgr.core.gating import (
    Check,
    CommandCheck,
    JsonCheck,
    ProbeCheck,
    VerdictKind,
)
from trafficmgr.core.model import Group, GroupPhase, Publish
from trafficmgr.core.routing import Table
from trafficmgr.core.state import EndpointState
from trafficmgr.core.template import ExecCheck, HttpCheck
from trafficmgr.runtimes.contract import ExecSession, RuntimeFailure, RuntimeUnknownError
from trafficmgr.runtimes.embedded import identity
from trafficmgr.runtimes.memory import MemoryRuntime

PASSED, FAILED, UNKNOWN = VerdictKind.passed, VerdictKind.failed, VerdictKind.insufficient
SECRET = "canary-3f9a"
PROMETHEUS = "data.result.0.value.1"


def state_of(*groups: Group, is_away: bool = False) -> EndpointState:
    return EndpointState(
        name=NAME,
        boot_id="boot-1",
        settings=settings(),
        table=Table(endpoint=NAME, generation=0, hosts=(), publish=Publish.proxy, ttl_s=1),
        groups=groups,
        is_engine_away=is_away,
    )


def subject(*groups: Group, is_away: bool = False) -> Subject:
    return Subject(state_of(*groups, is_away=is_away), "v2", 10)


# -- http -----------------------------------------------------------------------------------------


async def found(
    replies: Replies, path: str = "", *, least: float | None = None, most: float | None = None
) -> Finding:
    async with serving(replies) as port:
        check = JsonCheck(
            url=f"http://127.0.0.1:{port}/q?token={SECRET}",
            path=path,
            at_least=least,
            at_most=most,
        )
        finding = await ask_json(check, 20.0)
    assert SECRET not in repr(finding)
    return finding


def prometheus(value: object) -> str:
    return json.dumps({"data": {"result": [{"value": [1700000000, value]}]}, "note": SECRET})


@pytest.mark.parametrize(
    ("value", "kind", "why"),
    [
        ("0.003", PASSED, "0.003 is within bounds"),
        (0.01, PASSED, "0.01 is within bounds"),
        (0, PASSED, "0 is within bounds"),
        ("0.02", FAILED, "0.02 is more than 0.01"),
        (-1, FAILED, "-1 is less than 0"),
    ],
)
async def test_a_number_in_the_answer_must_be_within_its_bounds(
    value: object, kind: VerdictKind, why: str
) -> None:
    """Prometheus writes numbers as strings."""
    finding = await found(Replies(body=prometheus(value)), PROMETHEUS, least=0.0, most=0.01)

    assert (finding.kind, finding.why) == (kind, why)
    assert finding.numbers == {
        "value": float(str(value)),
        "at_least": 0.0,
        "at_most": 0.01,
    }


async def test_a_bound_that_is_not_set_bounds_nothing() -> None:
    assert (await found(Replies(body="[5]"), "0", least=3.0)).kind is PASSED
    assert (await found(Replies(body="[5]"), "0", most=9.0)).kind is PASSED


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("<html>", "what it answered is no JSON"),
        (b'"\xff"', "what it answered is no JSON"),
        ("[" * 100_000, "what it answered is no JSON"),
        ("{}", f"there is no {PROMETHEUS} in its answer"),
        ('{"data": {"result": []}}', f"there is no {PROMETHEUS} in its answer"),
        ('{"data": {"result": "long"}}', f"there is no {PROMETHEUS} in its answer"),
        (prometheus(SECRET), f"{PROMETHEUS} in its answer is no number"),
        (prometheus("NaN"), f"{PROMETHEUS} in its answer is no number"),
        (prometheus("+Inf"), f"{PROMETHEUS} in its answer is no number"),
        (prometheus(10**400), f"{PROMETHEUS} in its answer is no number"),
        (prometheus(value=True), f"{PROMETHEUS} in its answer is no number"),
        (prometheus(None), f"{PROMETHEUS} in its answer is no number"),
        (prometheus({}), f"{PROMETHEUS} in its answer is no number"),
    ],
)
async def test_an_answer_without_the_number_says_nothing(body: str | bytes, why: str) -> None:
    finding = await found(Replies(body=body), PROMETHEUS, most=0.01)

    assert (finding.kind, finding.why, finding.numbers) == (UNKNOWN, why, {})


async def test_an_answer_that_is_too_long_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "BODY_BYTES", 1024)

    finding = await found(Replies(body=" " * 1024 + "1"), PROMETHEUS)

    assert (finding.kind, finding.why) == (UNKNOWN, "its answer is longer than 1 KiB")


@pytest.mark.parametrize("status", [302, 404, 503])
async def test_another_status_decides_only_where_no_number_does(status: int) -> None:
    """A query that can't be answered now is no bad number; a health page that fails is a fail."""
    replies = Replies(status, prometheus(0), {"Location": "/login"})

    with_number = await found(replies, PROMETHEUS, most=1.0)
    by_status = await found(replies)

    assert (with_number.kind, with_number.why) == (UNKNOWN, f"it answered {status}")
    assert (by_status.kind, by_status.why) == (FAILED, f"it answered {status}")


async def test_by_status_any_2xx_passes() -> None:
    finding = await found(Replies(204))

    assert (finding.kind, finding.why) == (PASSED, "it answered 204")


@pytest.mark.parametrize("path", ["", PROMETHEUS])
async def test_who_can_not_be_asked_has_not_failed(path: str) -> None:
    with nobody() as port:
        refused = await ask_json(JsonCheck(url=f"http://127.0.0.1:{port}/", path=path), 20.0)
    async with speaking(b"") as (port, _):
        broken = await ask_json(JsonCheck(url=f"http://127.0.0.1:{port}/", path=path), 20.0)

    assert {refused.kind, broken.kind} == {UNKNOWN}
    assert refused.why == "it could not be asked: connection refused"
    assert broken.why == "it could not be asked: the connection broke off"


async def test_who_does_not_answer_in_time_has_not_failed() -> None:
    replies = Replies()
    replies.hangs = True
    async with serving(replies) as port:
        finding = await ask_json(JsonCheck(url=f"http://127.0.0.1:{port}/"), 0.05)

    assert finding == Finding(UNKNOWN, "it could not be asked: no answer within 0.05s")


# -- commands -------------------------------------------------------------------------------------


def shell(script: str) -> CommandCheck:
    return CommandCheck(command=("sh", "-c", script))


@pytest.mark.parametrize(
    ("script", "kind", "why", "code"),
    [
        ("exit 0", PASSED, "the command ended with exit code 0", 0.0),
        ("exit 3", FAILED, "the command ended with exit code 3", 3.0),
        ("kill -9 $$", FAILED, "the command was ended by signal 9", -9.0),
        (
            f"echo {SECRET}; echo {SECRET} >&2; exit 1",
            FAILED,
            "the command ended with exit code 1",
            1.0,
        ),
        ("cat", PASSED, "the command ended with exit code 0", 0.0),
    ],
)
async def test_the_exit_code_decides_and_what_is_written_is_not_told(
    script: str, kind: VerdictKind, why: str, code: float, capfd: pytest.CaptureFixture[str]
) -> None:
    finding = await run_command(shell(script), 20.0, subject())

    assert finding == Finding(kind, why, {"exit_code": code})
    assert capfd.readouterr() == ("", "")


async def test_a_command_knows_what_it_is_about(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OF_THE_CONTROLLER", "yes")
    names = "$TRAFFICMGR_ENDPOINT $TRAFFICMGR_REVISION $TRAFFICMGR_WEIGHT $OF_THE_CONTROLLER"

    await run_command(shell(f"echo {names} > {tmp_path}/seen"), 20.0, subject())

    assert (tmp_path / "seen").read_text() == f"{NAME} v2 10 yes\n"


@pytest.mark.parametrize("program", ["missing", "folder", "file"])
async def test_a_command_that_can_not_be_started_has_not_failed(
    program: str, tmp_path: Path
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("not executable")

    finding = await run_command(CommandCheck(command=(str(tmp_path / program),)), 20.0, subject())

    assert finding.kind is UNKNOWN
    assert finding.why.startswith("the command can't be started: ")


WITH_CHILD = "sleep 600 & echo $$ $! > {}.new; mv {}.new {}; wait"


def written_pids(file: Path) -> list[identity.ProcessId]:
    """Return who a command and its child are, as it wrote down."""
    known = [identity.of(int(pid)) for pid in file.read_text().split()]
    return [one for one in known if one is not None]


async def test_a_command_that_hangs_is_killed_and_has_not_failed() -> None:
    finding = await run_command(shell("sleep 600"), 0.05, subject())

    assert finding == Finding(UNKNOWN, "the command did not end within 0.05s and was killed")


async def test_a_command_is_killed_with_all_that_it_started(tmp_path: Path) -> None:
    file = tmp_path / "pids"
    hung = shell(WITH_CHILD.format(file, file, file))
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(run_command(hung, 600.0, subject()))
        await eventually(file.exists)
        pids = written_pids(file)
        task.cancel()
    assert len(pids) == 2

    await eventually(lambda: not any(map(identity.is_alive, pids)))


async def test_a_command_has_a_session_of_its_own(tmp_path: Path) -> None:
    program = "import os, sys; open(sys.argv[1], 'w').write(f'{os.getsid(0)} {os.getpid()}')"
    file = tmp_path / "seen"

    command = (sys.executable, "-c", program, str(file))
    await run_command(CommandCheck(command=command), 20.0, subject())

    session, pid = file.read_text().split()
    assert session == pid != str(os.getsid(0))


def test_commands_do_the_same_in_the_event_loop_of_the_service(tmp_path: Path) -> None:
    async def all_kinds() -> list[VerdictKind]:
        asked = (shell("exit 0"), shell("exit 1"), CommandCheck(command=(f"{tmp_path}/none",)))
        found = [await run_command(check, 20.0, subject()) for check in asked]
        found.append(await run_command(shell("sleep 600"), 0.05, subject()))
        return [finding.kind for finding in found]

    assert uvloop.run(all_kinds()) == [PASSED, FAILED, UNKNOWN, UNKNOWN]


# -- probes ---------------------------------------------------------------------------------------


def group(number: int, **given: object) -> Group:
    return Group(
        id=f"shop-{number}",
        revision="v2",
        created_at=0.0,
        address=f"127.77.202.{number}",
        phase=GroupPhase.started,
        is_ready=True,
        ready_since=0.0,
    ).but(**given)


async def probed(
    check: ProbeCheck, about: Subject, runtime: MemoryRuntime | None = None
) -> Finding:
    asker = Asker(runtime=runtime or MemoryRuntime(), clock=boottime)
    return await asker.ask(Check(name="deep", ask=check, timeout_s=20.0), about)


async def test_every_ready_group_of_the_revision_is_probed() -> None:
    first, second = Replies(), Replies()
    others = (
        group(3, is_ready=False),
        group(4, is_retiring=True),
        group(5, revision="v1"),
        group(6, hook="migrate"),
        group(7, phase=GroupPhase.completed),
    )
    async with serving(first, "127.77.202.1") as port:
        check = ProbeCheck(check=HttpCheck(port=port, path="/deep"))
        alone = await probed(check, subject(group(1), *others))
        async with serving(second, "127.77.202.2", port):
            both = await probed(check, subject(group(1), group(2), *others))
            second.status = 500
            one_fails = await probed(check, subject(group(1), group(2)))

    assert alone == Finding(PASSED, "it passed in 1 group")
    assert both == Finding(PASSED, "it passed in 2 groups")
    assert one_fails == Finding(FAILED, "group shop-2: GET /deep answered 500")


async def test_without_a_ready_group_there_is_nobody_to_ask() -> None:
    finding = await probed(ProbeCheck(check=HttpCheck(port=80)), subject(group(1, is_ready=False)))

    assert finding.kind is UNKNOWN
    assert finding.why == "no group of the revision is ready, so there is nobody to ask"


class Moody(MemoryRuntime):
    """A runtime in which no command can be run."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error

    async def exec(
        self, group: str, container: str, command: tuple[str, ...], *, has_tty: bool = False
    ) -> ExecSession:
        assert (group, container, command, has_tty) == ("shop-1", "web", ("./deep",), False)
        raise self.error


IN_WEB = ProbeCheck(check=ExecCheck(command=("./deep",)), container="web")


async def test_an_engine_that_is_away_says_nothing_about_a_group() -> None:
    away = await probed(IN_WEB, subject(group(1)), Moody(RuntimeUnknownError("It is away.")))
    lost = Moody(RuntimeFailure("There is no program './deep'."))
    failing = await probed(IN_WEB, subject(group(1)), lost)
    failing_while_away = await probed(IN_WEB, subject(group(1), is_away=True), lost)

    assert away == Finding(UNKNOWN, "group shop-1 could not be asked")
    assert failing == Finding(FAILED, "group shop-1: There is no program './deep'")
    assert failing_while_away == Finding(UNKNOWN, "group shop-1 fails, but the engine is away")


# -- what findings amount to ----------------------------------------------------------------------

GOOD, BAD = Finding(PASSED, "Fine."), Finding(FAILED, "it answered 500", {"value": 3.0})
NOT_KNOWN = Finding(UNKNOWN, "it could not be asked: connection refused")


class Oracle:
    """A check whose findings are told beforehand; after the last it hangs."""

    def __init__(self, *findings: Finding) -> None:
        self.findings = list(findings)

    async def ask(self) -> Finding:
        if not self.findings:
            await asyncio.Event().wait()
        return self.findings.pop(0)


async def kinds(
    fall: int, *findings: Finding, between: Callable[[Inquiry], None] = lambda _: None
) -> list[VerdictKind]:
    """Return the verdict after each finding, the first before any."""
    seen = []
    inquiry = Inquiry(Check(name="deep", ask=shell(""), fall=fall), Oracle().ask, Clock())
    seen.append(inquiry.verdict.kind)
    for finding in findings:
        await let_find(inquiry, finding)
        seen.append(inquiry.verdict.kind)
        between(inquiry)
    return seen


async def let_find(inquiry: Inquiry, finding: Finding) -> None:
    oracle = Oracle(finding)
    inquiry._ask = oracle.ask
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(inquiry.run())
        await eventually(lambda: not oracle.findings)
        task.cancel()


async def test_one_pass_is_a_pass_and_one_failure_a_fail() -> None:
    assert await kinds(1, GOOD, BAD, GOOD) == [UNKNOWN, PASSED, FAILED, PASSED]


async def test_it_fails_after_so_many_failures_in_a_row() -> None:
    """Below that it is no pass any more, so no step ends while it fails."""
    expected = [UNKNOWN, PASSED, UNKNOWN, UNKNOWN, PASSED, UNKNOWN, UNKNOWN, FAILED]

    assert await kinds(3, GOOD, BAD, BAD, GOOD, BAD, BAD, BAD) == expected


async def test_what_is_not_known_counts_neither_for_nor_against() -> None:
    expected = [UNKNOWN, UNKNOWN, UNKNOWN, FAILED]

    assert await kinds(2, BAD, NOT_KNOWN, BAD) == expected


async def test_no_stage_passes_by_what_was_found_before_but_failures_stay_counted() -> None:
    seen: list[VerdictKind] = []

    def next_stage(inquiry: Inquiry) -> None:
        inquiry.begin_stage()
        seen.append(inquiry.verdict.kind)

    told = await kinds(2, GOOD, BAD, BAD, between=next_stage)

    assert told == [UNKNOWN, PASSED, UNKNOWN, FAILED]
    assert seen == [UNKNOWN] * 3


async def test_a_verdict_says_why_and_by_which_numbers() -> None:
    clock = Clock()
    inquiry = Inquiry(Check(name="deep", ask=shell(""), fall=3), Oracle().ask, clock)
    clock.advance(5.0)
    await let_find(inquiry, BAD)

    assert inquiry.verdict.gate == "deep"
    assert inquiry.verdict.at == 1005.0
    assert inquiry.verdict.why == "it answered 500; 1 in a row, and 3 are a fail"
    assert inquiry.verdict.numbers == {"value": 3.0, "failures": 1.0, "fall": 3.0}


async def test_it_is_asked_again_at_its_pace() -> None:
    oracle = Oracle(*[GOOD] * 5)
    inquiry = Inquiry(Check(name="deep", ask=shell(""), every_s=0.01), oracle.ask, boottime)
    slow_oracle = Oracle(*[GOOD] * 5)
    slow = Inquiry(Check(name="slow", ask=shell(""), every_s=600.0), slow_oracle.ask, boottime)

    async with asyncio.TaskGroup() as tasks:
        asking = [tasks.create_task(one.run()) for one in (inquiry, slow)]
        await eventually(lambda: not oracle.findings)
        for task in asking:
            task.cancel()

    assert len(slow_oracle.findings) == 4
