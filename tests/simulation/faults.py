"""What goes wrong in a history, and what the endpoints are like: everything a seed decides first.

Swarm testing (Groce et al., ISSTA 2012): each seed switches on some kinds of fault and leaves the
others out, so that no fault always hides behind another. Rates are per occasion, times in seconds.
"""

from dataclasses import dataclass, fields, replace
from random import Random

from support.story import TEMPLATE

from trafficmgr.core.model import CandidateReplicas, EndpointSettings, OnNewer, Publish, Step
from trafficmgr.core.template import ImageDigest, Revision


@dataclass(frozen=True)
class Faults:
    """How often each kind of trouble comes; 0 is never. A field's value here is its worst rate."""

    crash: float = 0.03
    """The controller dies at one of its boundaries, per batch of events."""
    slow_disk: float = 0.15
    """The journal takes its time, per append; events wait meanwhile and arrive late."""
    slow_controller: float = 0.1
    """An event waits before it is handled, so that its `at` is older than others'."""
    late_timer: float = 0.3
    """The timer comes late."""
    worker_dies: float = 0.03
    """A worker ends without a word, per tick."""
    worker_leaves: float = 0.02
    """A worker ends with `bye`, per tick."""
    worker_hangs: float = 0.03
    """A worker neither applies nor acknowledges, per tick; it serves on."""
    worker_slow: float = 0.2
    """A worker takes seconds to apply, per table."""
    link_breaks: float = 0.04
    """A worker's link is down for a while, per tick; what was under way is lost."""
    ack_again: float = 0.1
    """An acknowledgement arrives twice, the second time late."""
    start_slow: float = 0.2
    start_never: float = 0.1
    start_fails: float = 0.1
    start_lies: float = 0.1
    """A start succeeds and reports failure."""
    start_unknown: float = 0.25
    """It can't be known whether the group can be started; it is tried again."""
    stop_slow: float = 0.2
    list_lags: float = 0.3
    """Deaths of groups are seen late."""
    group_dies: float = 0.05
    """Some group's processes end by themselves, per tick."""
    group_flaps: float = 0.05
    """Some group fails its probes for a while, per tick."""
    bad_revision: float = 0.5
    """A revision is broken in one way or another, per revision."""
    goes_bad: float = 0.15
    """A revision breaks some time after it was fine, per revision."""
    tasks: float = 0.1
    """An endpoint's groups come to the end of their work, per endpoint."""
    engine_leaves: float = 0.02
    """The engine can't be asked for a while, per tick; what runs goes on running."""
    old_tag: float = 0.4
    """The registry goes back to an image of before, per change."""
    suspend: float = 0.01
    """The machine sleeps; CLOCK_BOOTTIME counts it and so do resolvers, per tick."""
    reboot: float = 0.008
    """The machine is restarted, per tick."""
    supervisor_dies: float = 0.01
    """All workers are replaced and nobody tells how they ended, per tick."""
    operator: float = 0.15
    """Somebody presses a button, per tick."""
    settings: float = 0.05
    """Somebody changes the config, per tick."""
    removal: float = 0.02
    """Somebody takes an endpoint out of the config, per tick."""


CALM = Faults(**{field.name: 0.0 for field in fields(Faults)})

ALWAYS = ("bad_revision", "operator")
"""Without these a history has little to tell."""


def draw_faults(rng: Random) -> Faults:
    """Return the faults of a history: some kinds, each at a rate of its own."""
    worst, share = Faults(), rng.uniform(0.1, 0.7)
    rates = {
        field.name: getattr(worst, field.name) * rng.random()
        for field in fields(Faults)
        if field.name in ALWAYS or rng.random() < share
    }
    return replace(CALM, **rates)


# -- endpoints ------------------------------------------------------------------------------------


def draw_settings(rng: Random, name: str) -> EndpointSettings:
    """Return an endpoint as somebody might configure it, with short times."""
    return EndpointSettings(
        name=name,
        hosts=(f"{name}.test",),
        template=TEMPLATE,
        port=8080,
        replicas=rng.choice((1, 1, 2, 2, 3)),
        publish=rng.choice((Publish.proxy, Publish.groups, Publish.groups)),
        ttl_s=rng.choice((1, 5, 20, 60)),
        ttl_grace_s=rng.choice((0.0, 2.0, 5.0)),
        steps=_steps(rng),
        candidate_replicas=rng.choice(tuple(CandidateReplicas)),
        on_newer=rng.choice((OnNewer.supersede, OnNewer.supersede, *OnNewer)),
        min_ready_s=rng.choice((0.0, 1.0, 4.0)),
        deadline_s=rng.choice((15.0, 40.0, 90.0)),
        watch_s=rng.choice((0.0, 5.0, 20.0)),
        keep_previous_s=rng.choice((0.0, 20.0, 60.0)),
        drain_http_s=rng.choice((0.5, 5.0, 20.0)),
        drain_websocket_s=rng.choice((0.5, 10.0, 40.0)),
        fence_s=rng.choice((1.0, 3.0, 5.0)),
        max_revisions=rng.choice((2, 3, 3, 4)),
    )


def _steps(rng: Random) -> tuple[Step, ...]:
    weights = sorted(rng.sample((0, 5, 10, 25, 34, 50, 67, 80), rng.choice((0, 1, 2, 2, 3))))
    return tuple(
        Step(
            weight_pct=weight,
            hold_s=rng.choice((0.0, 1.0, 5.0, 10.0)),
            pause=rng.random() < 0.1,
            deadline_s=rng.choice((None, None, None, 10.0)),
        )
        for weight in weights
    )


def changed(rng: Random, settings: EndpointSettings) -> EndpointSettings:
    """Return the endpoint with one to three keys changed."""
    other = draw_settings(rng, settings.name)
    kept = {"name", "hosts", "template", "port", "affinity", "gates", "hooks", "smoke", "http"}
    keys = [f for f in settings.__struct_fields__ if f not in kept]
    return settings.but(**{key: getattr(other, key) for key in rng.sample(keys, rng.randint(1, 3))})


# -- revisions ------------------------------------------------------------------------------------

BROKEN = ("never ready", "starts fail", "dies at once", "crash loop")
"""How a revision can be broken from the start."""


@dataclass
class Nature:
    """What a revision is like; `bad_after_s` is when a fine one breaks, counted from its start."""

    kind: str = "good"
    bad_after_s: float = 0.0


def draw_nature(rng: Random, faults: Faults) -> Nature:
    """Return what the next revision is like."""
    if rng.random() < faults.bad_revision:
        return Nature(rng.choice(BROKEN))
    if rng.random() < faults.goes_bad:
        return Nature("goes bad", rng.uniform(5.0, 60.0))
    return Nature()


def revision(label: str) -> Revision:
    """Return a revision whose id is its label, so that transcripts can be read."""
    image = ImageDigest(
        container="web", repository="registry.test/shop/web", digest=label, platform_digest=label
    )
    return Revision(id=label, template=TEMPLATE, images=(image,))
