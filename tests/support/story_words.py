"""The words of a story: settings, revisions and durations as scenario files write them."""

import re

from trafficmgr.core.gating import (
    Compare,
    Gates,
    Hook,
    HookStage,
    HttpCall,
    OnInsufficient,
    Smoke,
    TaskCommand,
)
from trafficmgr.core.model import (
    Affinity,
    CandidateReplicas,
    EndpointSettings,
    OnNewer,
    Publish,
    Step,
)
from trafficmgr.core.template import ContainerTemplate, GroupTemplate, ImageDigest, Revision
from trafficmgr.core.traffic import HttpPolicy

NAME = "shop"
TEMPLATE = GroupTemplate(
    containers=(ContainerTemplate(name="web", image="registry.test/shop/web", ports=(8080,)),)
)


def seconds(text: str) -> float:
    """Return the seconds in "90s" or "2m"."""
    number, unit = re.fullmatch(r"([\d.]+)(s|m)", text).groups()  # type: ignore[union-attr]
    return float(number) * (60 if unit == "m" else 1)


def step(weight: str, hold: str, deadline: str = "") -> Step:
    """Return a step from "10/30s", "10/pause" or "10/30s/60s" with a deadline of its own."""
    return Step(
        weight_pct=int(weight),
        hold_s=0.0 if hold == "pause" else seconds(hold),
        pause=hold == "pause",
        deadline_s=seconds(deadline) if deadline else None,
    )


def hook(stage: str, name: str, action: str, timeout: str, *words: str) -> Hook:
    """Return a hook from "before:migrate:command:60s:final"."""
    is_call = action == "call"
    return Hook(
        name=name,
        stage=HookStage(stage),
        action=HttpCall(url="http://hook.test/")
        if is_call
        else TaskCommand(container="web", command=("do", name)),
        timeout_s=seconds(timeout),
        is_reversible="final" not in words,
    )


def gates(names: str, max_hold: str, on_insufficient: str) -> Gates:
    """Return gates from "max_error_rate,compare"."""
    given = names.split(",") if names else []
    return Gates(
        max_error_rate=0.01 if "max_error_rate" in given else None,
        compare=Compare() if "compare" in given else None,
        max_hold_s=seconds(max_hold),
        on_insufficient=OnInsufficient(on_insufficient),
    )


def settings(**given: str) -> EndpointSettings:
    """Return an endpoint's settings from the words of a scenario."""
    steps = tuple(step(*s.split("/")) for s in given.pop("steps", "").split(",") if s)
    publish = Publish(given.pop("publish", "proxy"))
    on_newer = OnNewer(given.pop("on_newer", "supersede"))
    candidate_replicas = CandidateReplicas(given.pop("candidate_replicas", "full"))
    replicas = int(given.pop("replicas", "1"))
    ttl_s = int(seconds(given.pop("ttl", "10s")))
    most = int(given.pop("max_revisions", "3"))
    hooks = tuple(hook(*h.split(":")) for h in given.pop("hooks", "").split(",") if h)
    smoke = given.pop("smoke", "")
    wanted = gates(
        given.pop("gates", ""),
        given.pop("max_hold", "60s"),
        given.pop("on_insufficient", "pause"),
    )
    affinity = Affinity(given.pop("affinity", "none"))
    durations = {f"{key}_s": seconds(value) for key, value in given.items()}
    return EndpointSettings(
        name=NAME,
        hosts=("shop.test",),
        template=TEMPLATE,
        port=8080,
        replicas=replicas,
        publish=publish,
        ttl_s=ttl_s,
        steps=steps,
        max_revisions=most,
        on_newer=on_newer,
        candidate_replicas=candidate_replicas,
        hooks=hooks,
        smoke=Smoke(is_rehearsed=smoke == "rehearsed") if smoke else None,
        gates=wanted,
        affinity=affinity,
        http=HttpPolicy(),
        **durations,
    )


def revision(label: str) -> Revision:
    """Return a revision whose id is its label, so that stories can be read."""
    image = ImageDigest(
        container="web", repository="registry.test/shop/web", digest=label, platform_digest=label
    )
    return Revision(id=label, template=TEMPLATE, images=(image,))
