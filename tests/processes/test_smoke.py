"""Smoke through the front door: a release answers as it should before anybody gets it."""

from collections.abc import Iterator
from typing import Any

import pytest
from support.gate_clients import Crowd
from support.gate_support import House, Site, housed

pytestmark = pytest.mark.processes

Data = dict[str, Any]

REQUESTS = [
    {"path": "/healthz", "body": "^ok$"},
    {"path": "/", "status": 200, "body": '"version": "[0-9]+"'},
]


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory, registry: str) -> Iterator[House]:
    with housed(tmp_path_factory.mktemp("smoke"), registry) as installation:
        yield installation


def share_of(receipt: Data, role: str) -> Data:
    """Return what was counted of a revision."""
    return next(one for one in receipt["revisions"] if one["role"] == role)


def legs(site: Site, rollout: str) -> list[tuple[int, bool]]:
    """Return the legs that were asked in a rollout, and whether they were answered well."""
    told = [one["event"] for one in site.events("SmokeEnded")]
    return [(one["leg"], one["is_success"]) for one in told if one["rollout"] == rollout]


def test_a_release_is_rehearsed_before_it_has_any_weight(house: House) -> None:
    """Its preview goes forth, back and forth again; no client meets what answered badly."""
    smoke = {"requests": REQUESTS, "rehearse": True}
    with house.site("smoky", smoke=smoke) as site, Crowd(site, size=2) as crowd:
        site.push("2")
        site.wait_for_end(2)
        site.push("not a number")
        site.wait_for_end(3)
        good, bad = map(site.wait_for_receipt, (2, 3))
        crowd.wait_for_more(20)
        site.wait_until_serving("2")
        rehearsed, refused = legs(site, "smoky-r2"), legs(site, "smoky-r3")

    assert (good["outcome"], good["smoke"]["phase"]) == ("completed", "passed")
    assert rehearsed == [(0, True), (1, True), (2, True)]
    assert crowd.of("2") > 0
    for role in ("from", "to"):  # the leg back shows stable
        assert share_of(good, role)["preview"] > 0
    assert (bad["outcome"], bad["smoke"]["phase"]) == ("aborted", "failed")
    assert bad["reason"].startswith("smoke failed: GET / on preview.smoky.apps.test ")
    assert "does not match" in bad["reason"]
    assert refused == [(0, False)]
    assert [one["what"] for one in bad["phases"]] == ["started", "aborting", "aborted"]
    assert share_of(bad, "to")["requests"] == 0
    assert share_of(bad, "to")["preview"] > 0
    assert crowd.of("not a number") == 0
    assert crowd.trouble == []
