"""docs/operations.md, made of the table that also decides (core/operator.py).

`python -m trafficmgr.admin.operations > docs/operations.md` writes it; a test holds it current.
"""

import sys
from collections.abc import Iterator

from trafficmgr.core.operator import REFUSED, TABLE, Standing, Verb

HEAD = """\
# What an operator may ask for, and when

Made by `python -m trafficmgr.admin.operations` from the table that decides (`core/operator.py`);
do not edit. A refusal is this sentence on stderr and exit code 1; over the admin API it is 409.
`trafficmgr why ENDPOINT` says where an endpoint stands, what it waits for and what to type.

Something else may be missing as well: `rollback`, and `abort` of a watched revision, need a
revision to go back to; `retry` needs one that failed or was ignored, or a hook of which nobody
knows how it ended; a pause that the config asked for is ended by `promote` and not by `resume`. A
rollout that was paused by itself asks a question: `why` and `status` print it, with what each
answer does.
"""

TYPED = {Verb.promote_full: "promote ENDPOINT --full", Verb.scale: "scale ENDPOINT N"}
"""How a verb is typed where that is more than the verb and the endpoint."""

STANDINGS = {
    Standing.idle: "no rollout is under way",
    Standing.starting: "the candidate's groups start; it has no traffic",
    Standing.stepping: "the candidate has a step's share, or is previewed",
    Standing.paused: "`pause` was asked for, the step waits for `promote`, or it asks by itself",
    Standing.promoting: "the new revision is stable and watched",
    Standing.aborting: "traffic is back; the candidate's groups drain",
    Standing.removed: "the endpoint was taken out of the config and drains",
}
"""Where an endpoint can stand, in the order of a rollout -> what that means."""


def page() -> str:
    """Return the page."""
    return "\n".join(_lines())


def _lines() -> Iterator[str]:
    yield HEAD
    yield "| where an endpoint stands | that is |"
    yield "|---|---|"
    yield from (f"| {standing} | {what} |" for standing, what in STANDINGS.items())
    for verb in Verb:
        yield ""
        yield f"## `{TYPED.get(verb, f'{verb} ENDPOINT')}`"
        yield ""
        yield "| when | what it does |"
        yield "|---|---|"
        yield from _rows(TABLE[verb])
    yield ""


def _rows(says: dict[Standing, str]) -> Iterator[str]:
    """Yield a row for each answer, with all the standings that have it."""
    for answer in dict.fromkeys(says[standing] for standing in STANDINGS):
        when = ", ".join(standing for standing in STANDINGS if says[standing] == answer)
        is_refused = answer.startswith(REFUSED)
        what = f"*refused*: {answer.removeprefix(REFUSED)}" if is_refused else answer
        yield f"| {when} | {what} |"


if __name__ == "__main__":
    sys.stdout.write(page())
