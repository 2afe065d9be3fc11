"""What a revision must prove in a history: gates, hooks, smoke; and what goes wrong with them.

All of it is drawn from a chance of its own, `World.luck`, so that a history in which nothing must
be proved is the one that its seed always was. Gates and hooks are in a third of the endpoints each,
smoke is in a quarter.
"""

from dataclasses import dataclass, fields, replace
from random import Random

from trafficmgr.core.gating import (
    Check,
    CommandCheck,
    Compare,
    Gates,
    Hook,
    HookStage,
    HttpCall,
    OnInsufficient,
    Smoke,
    TaskCommand,
)
from trafficmgr.core.model import Affinity, EndpointSettings, Publish

NOTHING = Gates()


@dataclass(frozen=True)
class Flaws:
    """How often each kind of trouble comes to what must be proved; 0 is never (see `Faults`)."""

    gate_fails: float = 0.3
    """A gate condemns a stage, per gate and stage."""
    gate_flips: float = 0.3
    """A gate passes and condemns later."""
    gate_silent: float = 0.4
    """A gate has not seen enough for a long time."""
    said_again: float = 0.3
    """What was told is told again, much later: an echo of another stage, leg or rollout."""
    task_fails: float = 0.3
    task_hangs: float = 0.2
    task_vanishes: float = 0.2
    """A task's processes end and nobody can tell how."""
    task_start_fails: float = 0.2
    task_listens: float = 0.3
    """A task answers probes, as if it were a replica."""
    call_fails: float = 0.3
    call_hangs: float = 0.2
    call_slow: float = 0.3
    call_late: float = 0.5
    """The answer comes although nobody waits for it any more."""
    smoke_fails: float = 0.2
    smoke_slow: float = 0.3
    smoke_astray: float = 0.3
    """The answer to an earlier leg comes in between, or to one that there is not."""


FLAWLESS = Flaws(**{field.name: 0.0 for field in fields(Flaws)})


def draw_flaws(luck: Random) -> Flaws:
    """Return the flaws of a history: some kinds, each at a rate of its own."""
    worst, share = Flaws(), luck.uniform(0.1, 0.8)
    rates = {
        field.name: getattr(worst, field.name) * luck.random()
        for field in fields(Flaws)
        if luck.random() < share
    }
    return replace(FLAWLESS, **rates)


# -- what is asked --------------------------------------------------------------------------------


def demanding(luck: Random, settings: EndpointSettings) -> EndpointSettings:
    """Return the endpoint with what its revisions must prove, which most often is nothing."""
    smoke = Smoke(timeout_s=5.0, is_rehearsed=luck.random() < 0.5)
    return settings.but(
        affinity=Affinity.client if luck.random() < 0.25 else Affinity.none,
        gates=_gates(luck, settings.publish) if luck.random() < 0.34 else NOTHING,
        hooks=draw_hooks(luck) if luck.random() < 0.34 else (),
        smoke=smoke if luck.random() < 0.25 else None,
    )


def changed_demands(luck: Random, settings: EndpointSettings) -> EndpointSettings:
    """Return the endpoint with one of its demands drawn anew, now and then."""
    if luck.random() < 0.6:
        return settings
    key = luck.choice(("affinity", "gates", "hooks", "hooks", "smoke"))
    return settings.but(**{key: getattr(demanding(luck, settings), key)})


def _gates(luck: Random, publish: Publish) -> Gates:
    """Return gates as somebody might write them; our own counts see no direct clients."""
    sees_clients = publish is Publish.proxy
    ask = CommandCheck(command=("./check.sh",))
    checks = tuple(Check(name=name, ask=ask) for name in ("budget", "report"))
    many = luck.randint(0 if sees_clients else 1, 2)
    gates = Gates(
        checks=checks[:many],
        max_hold_s=luck.choice((5.0, 20.0, 60.0)),
        on_insufficient=luck.choice(tuple(OnInsufficient)),
    )
    if not sees_clients:
        return gates
    gates = gates.but(compare=Compare())
    return gates.but(max_error_rate=0.01, max_p95_s=0.4) if luck.random() < 0.5 else gates


def draw_hooks(luck: Random) -> tuple[Hook, ...]:
    """Return one to four hooks, in the order of their stages, as a config has them."""
    chosen = luck.sample(_EVERY_HOOK, luck.choice((1, 1, 2, 3, 4)))
    chosen.sort(key=lambda hook: list(HookStage).index(hook.stage))
    return tuple(
        hook.but(
            timeout_s=luck.choice((2.0, 10.0, 30.0)),
            is_reversible=luck.random() < 0.7,
        )
        for hook in chosen
    )


_TASK = TaskCommand(container="web", command=("./do",))
_CALL = HttpCall(url="http://ops.test/")
_EVERY_HOOK = [
    Hook(name="migrate", stage=HookStage.before, action=_TASK),
    Hook(name="announce", stage=HookStage.before, action=_CALL),
    Hook(name="measure", stage=HookStage.gate, action=_TASK),
    Hook(name="approve", stage=HookStage.gate, action=_CALL),
    Hook(name="clean", stage=HookStage.after, action=_TASK),
    Hook(name="report", stage=HookStage.after, action=_CALL),
]
