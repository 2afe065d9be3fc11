"""Durations, sizes and shares."""

import pytest

from trafficmgr.config import units
from trafficmgr.config.problems import UnfitError


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("10s", 10),
        ("5m", 300),
        ("1h", 3600),
        ("500ms", 0.5),
        ("1m30s", 90),
        ("1d1h", 90000),
        ("1.5s", 1.5),
        ("0.1s", 0.1),
        ("1s500ms", 1.5),
        ("0s", 0),
        ("0", 0),
        (0, 0),
    ],
)
def test_durations_have_units(text: object, seconds: float) -> None:
    assert units.duration(text) == seconds


@pytest.mark.parametrize(
    ("value", "hint"),
    [
        (10, "write 10s for seconds or 10m for minutes"),
        ("10", "write 10s for seconds or 10m for minutes"),
        (1.5, "write 1.5s for seconds or 1.5m for minutes"),
        ("-5s", "write 5s"),
        (True, "such as 10s"),
        (["10s"], "such as 10s"),
        ("", "write 500ms, 10s"),
        ("10 s", "write 500ms, 10s"),
        ("10sec", "write 500ms, 10s"),
        ("s", "write 500ms, 10s"),
        ("1s1m", "the larger first"),
        ("1s1s", "the larger first"),
        ("9" * 40 + "s", "write 500ms, 10s"),
    ],
)
def test_what_is_no_duration_says_what_to_write(value: object, hint: str) -> None:
    with pytest.raises(UnfitError) as caught:
        units.duration(value)

    assert hint in caught.value.hint


@pytest.mark.parametrize("text", ["1B", "1000B", "64MB", "1023KiB", "256MiB", "3GiB", "2TB"])
def test_a_size_is_shown_as_it_is_written(text: str) -> None:
    assert units.shown_size(units.size(text)) == text.replace("1000B", "1KB")


def test_an_interval_of_zero_is_refused() -> None:
    assert units.positive_duration("1ms") == 0.001
    with pytest.raises(UnfitError, match="is zero"):
        units.positive_duration("0s")


@pytest.mark.parametrize(("text", "seconds"), [("0s", 0), ("10s", 10), ("2147483647s", 2**31 - 1)])
def test_a_ttl_is_31_bits_of_whole_seconds(text: str, seconds: int) -> None:
    assert units.ttl(text) == seconds


@pytest.mark.parametrize("text", ["500ms", "1.5s", "2147483648s"])
def test_what_dns_cannot_say_is_no_ttl(text: str) -> None:
    with pytest.raises(UnfitError):
        units.ttl(text)


@pytest.mark.parametrize(
    ("text", "amount"),
    [
        ("256MiB", 256 * 1024**2),
        ("1GiB", 1024**3),
        ("512KiB", 512 * 1024),
        ("64MB", 64_000_000),
        ("1.5GiB", 1536 * 1024**2),
        ("10B", 10),
        ("10 MiB", 10 * 1024**2),
    ],
)
def test_sizes_have_units(text: str, amount: int) -> None:
    assert units.size(text) == amount


@pytest.mark.parametrize(
    ("value", "hint"),
    [
        (256, "write 256MiB for mebibytes or 256B for bytes"),
        ("256M", "write 256MiB"),
        ("1g", "write 1GiB"),
        ("1Gib", "write 1GiB"),
        ("1 parsec", "write 1MiB"),
        ("lots", "such as 256MiB"),
        ("0MiB", "at least 1B"),
        (True, "such as 256MiB"),
        (None, "such as 256MiB"),
    ],
)
def test_what_is_no_size_says_what_to_write(value: object, hint: str) -> None:
    with pytest.raises(UnfitError) as caught:
        units.size(value)

    assert hint in caught.value.hint


@pytest.mark.parametrize("text", ["10s", "1m30s", "500ms", "1h", "1d", "0s"])
def test_a_duration_is_shown_as_people_write_it(text: str) -> None:
    assert units.shown(units.duration(text)) == text


@pytest.mark.parametrize(
    ("written", "share"),
    [
        ("1%", 0.01),
        ("0.5%", 0.005),
        ("0.5 %", 0.005),
        ("99.9%", 0.999),
        (0.01, 0.01),
        ("0.01", 0.01),
        (0.00001, 0.00001),
        ("0.1%", 0.001),
    ],
)
def test_a_share_is_per_cent_or_a_number_below_one(written: object, share: float) -> None:
    assert units.share(written) == share


@pytest.mark.parametrize(
    ("value", "predicate", "hint"),
    [
        (0, "is zero", "write more than 0"),
        ("0%", "is zero", "write more than 0"),
        (0.0, "is zero", "write more than 0"),
        (1, "is all there is", "write 1% for per cent"),
        (5, "is all there is", "write 5% for per cent"),
        (2.5, "is all there is", "write 2.5% for per cent"),
        ("100%", "is all there is", "write less than 100%"),
        (100, "is all there is", "write less than 100%"),
        (-1, "is not a share", "such as 1%"),
        ("-1%", "is not a share", "such as 1%"),
        (True, "is not a share", "such as 1%"),
        ("one", "is not a share", "such as 1%"),
        ("", "is not a share", "such as 1%"),
        ("1%%", "is not a share", "such as 1%"),
        ([], "is not a share", "such as 1%"),
    ],
)
def test_what_is_no_share_says_what_to_write(value: object, predicate: str, hint: str) -> None:
    with pytest.raises(UnfitError, match=predicate) as caught:
        units.share(value)

    assert hint in caught.value.hint


@pytest.mark.parametrize(
    ("written", "part"), [("20%", 0.2), ("0%", 0.0), ("100%", 1.0), (0.07, 0.07), (0, 0.0)]
)
def test_per_cent_may_be_nothing_or_all(written: object, part: float) -> None:
    assert units.percent(written) == part


@pytest.mark.parametrize(
    ("value", "predicate", "hint"),
    [
        (20, "has no unit", "write 20% for per cent"),
        (1, "has no unit", "write 1% for per cent"),
        ("12.5%", "is not a whole number of per cent", "write 12%"),
        (0.005, "is not a whole number of per cent", "write 0%"),
        ("101%", "is more than all there is", "100% or less"),
        ("some", "is not a share", "such as 1%"),
    ],
)
def test_what_is_no_whole_per_cent_says_what_to_write(
    value: object, predicate: str, hint: str
) -> None:
    with pytest.raises(UnfitError, match=predicate) as caught:
        units.percent(value)

    assert hint in caught.value.hint


def test_an_alpha_is_at_most_a_half() -> None:
    assert units.alpha("50%") == 0.5

    with pytest.raises(UnfitError, match="more than half of all good releases"):
        units.alpha("50.1%")


@pytest.mark.parametrize("text", ["1%", "0.5%", "0.001%", "99.99%", "50%"])
def test_a_share_is_shown_as_it_is_written(text: str) -> None:
    assert units.shown_share(units.share(text)) == text


def test_what_is_asked_again_and_again_is_asked_once_a_second_at_most() -> None:
    assert units.interval("1s") == 1

    with pytest.raises(UnfitError, match="is shorter than a second"):
        units.interval("999ms")
