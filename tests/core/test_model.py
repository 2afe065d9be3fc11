"""The nouns keep their promises: identities for ever, clocks that can be halted."""

import pytest

from trafficmgr.core.model import Countdown
from trafficmgr.core.template import (
    ContainerTemplate,
    GroupTemplate,
    HttpCheck,
    ImageDigest,
    Probe,
    Resources,
    revision_id,
)

DIGEST = "sha256:" + "ab" * 32


def image(container: str = "web", digest: str = DIGEST) -> ImageDigest:
    return ImageDigest(
        container=container,
        repository="registry.example.com/shop/web",
        digest="sha256:" + "01" * 32,
        platform_digest=digest,
    )


def template(**changes: object) -> GroupTemplate:
    web = ContainerTemplate(name="web", image="registry.example.com/shop/web", ports=(8080,))
    return GroupTemplate(containers=(web.but(**changes),))


PINNED = {
    "plain": (
        template(),
        "9887c7b2",
    ),
    "env and command": (
        template(env={"B": "2", "A": "1"}, command=("serve", "--fast")),
        "1ec85aad",
    ),
    "limits": (
        template(resources=Resources(cpu=0.5, memory_bytes=256 * 1024 * 1024), stop_grace_s=30.0),
        "c7fea1a2",
    ),
}


@pytest.mark.parametrize("name", PINNED)
def test_known_ids_never_change(name: str) -> None:
    """A changed id would roll out every endpoint of every user at the next start."""
    written, pinned = PINNED[name]

    assert revision_id(written, (image(),))[:8] == pinned


def test_tag_and_probe_are_no_part_of_the_identity() -> None:
    probe = Probe(check=HttpCheck(port=8080))

    changed = template(tag="canary", readiness=probe)

    assert revision_id(changed, (image(),)) == revision_id(template(), (image(),))


def test_index_digest_is_no_part_of_the_identity() -> None:
    other_index = image().but(digest="sha256:" + "02" * 32)

    assert revision_id(template(), (other_index,)) == revision_id(template(), (image(),))


@pytest.mark.parametrize(
    "changes",
    [
        {"env": {"A": "1"}},
        {"command": ("x",)},
        {"ports": (81,)},
        {"stop_grace_s": 0.0},
        {"image": "registry.test/b"},
    ],
)
def test_what_the_user_wrote_is_part_of_the_identity(changes: dict[str, object]) -> None:
    assert revision_id(template(**changes), (image(),)) != revision_id(template(), (image(),))


def test_platform_digest_is_part_of_the_identity() -> None:
    other = image(digest="sha256:" + "cd" * 32)

    assert revision_id(template(), (other,)) != revision_id(template(), (image(),))


def test_writing_out_a_default_changes_nothing() -> None:
    spelled_out = template(stop_grace_s=10.0, working_dir="", env={})

    assert revision_id(spelled_out, (image(),)) == revision_id(template(), (image(),))


def test_a_halted_countdown_keeps_what_is_left() -> None:
    countdown = Countdown(left_s=10.0).run(100.0).halt(104.0)

    assert countdown.left_at(1_000.0) == pytest.approx(6.0)
    assert countdown.ends_at is None
    assert countdown.run(200.0).ends_at == pytest.approx(206.0)


def test_a_countdown_that_ended_has_nothing_left() -> None:
    countdown = Countdown(left_s=0.1).run(1.0)

    ends_at = countdown.ends_at

    assert ends_at is not None
    assert countdown.left_at(ends_at) == 0.0
    assert countdown.left_at(ends_at + 5) == 0.0
