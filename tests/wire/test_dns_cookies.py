"""DNS cookies against the vectors of RFC 9018 Appendix A and of the SipHash paper."""

from ipaddress import ip_address

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trafficmgr.wire.dns_cookies import Secrets, Standing, answered, siphash24

HEAD = "000a0018"  # code 10, 24 bytes
A1 = bytes.fromhex("e5e973e5a6b2a43f48e7dc849e37bfcf")
A4_OLD = bytes.fromhex("dd3bdf9344b678b185a6f5cb60fca715")
A4_NEW = bytes.fromhex("445536bcd2513298075a5d379663c962")
NOW_S = 1559731985
CLIENT = ip_address("198.51.100.100").packed
MINE = bytes.fromhex("2464c4abcf10c957")
SECRETS = Secrets(newest=A1)


def shown_at(now_s: int, *, secrets: Secrets = SECRETS, client: bytes = CLIENT) -> bytes:
    """Return what a client shows that was given a cookie at a time."""
    return answered(MINE, client, secrets, now_s).option[4:]


def with_reserved(option: bytes, reserved: bytes, secret: bytes) -> bytes:
    """Return a cookie as a server makes it that has a use for the reserved bytes."""
    made = option[:9] + reserved + option[12:16]
    return made + siphash24(secret, made + CLIENT)


# -- SipHash --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("length", "expected"),
    [
        (0, "310e0edd47db6f72"),
        (1, "fd67dc93c539f874"),
        (7, "37d1018bf50002ab"),
        (8, "6224939a79f5f593"),
        (9, "b0e4a90bdf82009e"),
        (15, "e545be4961ca29a1"),  # the one in the paper's appendix A, as bytes
        (63, "724506eb4c328a95"),
    ],
)
def test_siphash_is_the_reference(length: int, expected: str) -> None:
    assert siphash24(bytes(range(16)), bytes(range(length))).hex() == expected


# -- RFC 9018 Appendix A --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("client", "secrets", "now_s", "option", "standing", "reply"),
    [
        pytest.param(
            "198.51.100.100",
            SECRETS,
            1559731985,
            "2464c4abcf10c957",
            Standing.client_only,
            "2464c4abcf10c957010000005cf79f111f8130c3eee29480",
            id="A.1 a new cookie",
        ),
        pytest.param(
            "198.51.100.100",
            SECRETS,
            1559734385,
            "2464c4abcf10c957010000005cf79f111f8130c3eee29480",
            Standing.valid,
            "2464c4abcf10c957010000005cf7a871d4a564a1442aca77",
            id="A.2 renewed after 40 minutes",
        ),
        pytest.param(  # the RFC's reply is 1:52 h later, by when section 4.3 calls the cookie stale
            "203.0.113.203",
            SECRETS,
            1559734700,
            "fc93fc62807ddb8601abcdef5cf78f71a314227b6679ebf5",
            Standing.invalid,
            "fc93fc62807ddb86010000005cf7a9acf73a7810aca2381e",
            id="A.3 renewed, reserved bytes not zero",
        ),
        pytest.param(
            "2001:db8:220:1:59de:d0f4:8769:82b8",
            Secrets(newest=A4_NEW, previous=A4_OLD),
            1559741961,
            "22681ab97d52c298010000005cf7c57926556bd0934c72f8",
            Standing.valid,
            "22681ab97d52c298010000005cf7c609a6bb79d16625507a",
            id="A.4 IPv6, the secret was rolled over",
        ),
    ],
)
def test_it_answers_as_in_the_rfc(
    *, client: str, secrets: Secrets, now_s: int, option: str, standing: Standing, reply: str
) -> None:
    cookie = answered(bytes.fromhex(option), ip_address(client).packed, secrets, now_s)

    assert (cookie.standing, cookie.option.hex()) == (standing, HEAD + reply)


def test_reserved_bytes_count_as_they_came() -> None:
    """A.3 at a time when its cookie is not stale; it comes back as it was."""
    option = bytes.fromhex("fc93fc62807ddb8601abcdef5cf78f71a314227b6679ebf5")
    client = ip_address("203.0.113.203").packed

    cookie = answered(option, client, SECRETS, 0x5CF78F71 + 600)

    assert cookie == (Standing.valid, bytes.fromhex(HEAD) + option)


# -- what a cookie is worth -----------------------------------------------------------------------


@pytest.mark.parametrize("length", range(50))
def test_a_wrong_length_is_malformed(length: int) -> None:
    cookie = answered(bytes(length), CLIENT, SECRETS, NOW_S)

    is_malformed = length != 8 and not 16 <= length <= 40
    assert (cookie.standing is Standing.malformed) == is_malformed
    assert len(cookie.option) == (0 if is_malformed else 28)


@pytest.mark.parametrize(
    ("age_s", "standing", "is_kept"),
    [
        (-301, Standing.invalid, False),
        (-300, Standing.valid, True),
        (0, Standing.valid, True),
        (1800, Standing.valid, True),
        (1801, Standing.valid, False),
        (3600, Standing.valid, False),
        (3601, Standing.invalid, False),
        (2**31, Standing.invalid, False),
    ],
)
@pytest.mark.parametrize("made_at", [NOW_S, 2**32 - 100, 2**32 + 5000])  # in 2106 they wrap
def test_its_age_decides(made_at: int, age_s: int, standing: Standing, *, is_kept: bool) -> None:
    now_s = made_at + age_s
    option = shown_at(made_at)

    cookie = answered(option, CLIENT, SECRETS, now_s)

    assert cookie.standing is standing
    assert cookie.option[4:] == (option if is_kept else shown_at(now_s))


@pytest.mark.parametrize(
    ("what", "option"),
    [
        ("of another address", shown_at(NOW_S, client=ip_address("198.51.100.101").packed)),
        ("of another secret", shown_at(NOW_S, secrets=Secrets(newest=A4_NEW))),
        ("of another client cookie", b"x" + shown_at(NOW_S)[1:]),
        ("of another time", shown_at(NOW_S)[:15] + b"\x12" + shown_at(NOW_S)[16:]),
        ("with other reserved bytes", shown_at(NOW_S)[:9] + b"abc" + shown_at(NOW_S)[12:]),
        ("of version 2", shown_at(NOW_S)[:8] + b"\2" + shown_at(NOW_S)[9:]),
        ("too short for ours", shown_at(NOW_S)[:-1]),
        ("too long for ours", shown_at(NOW_S) + b"\0"),
        ("with another hash", shown_at(NOW_S)[:-1] + b"?"),
    ],
)
def test_what_is_not_ours_is_invalid_and_gets_one_of_ours(what: str, option: bytes) -> None:
    cookie = answered(option, CLIENT, SECRETS, NOW_S)

    assert cookie.standing is Standing.invalid, what
    assert cookie == (
        Standing.invalid,
        answered(option[:8], CLIENT, SECRETS, NOW_S).option,
    )


def test_another_version_is_invalid_even_if_its_hash_is_ours() -> None:
    made = MINE + b"\2" + shown_at(NOW_S)[9:16]

    cookie = answered(made + siphash24(A1, made + CLIENT), CLIENT, SECRETS, NOW_S)

    assert cookie.standing is Standing.invalid


def test_a_rotated_secret_is_believed_and_its_cookie_renewed() -> None:
    option = shown_at(NOW_S, secrets=Secrets(newest=A4_OLD))
    rotated = Secrets(newest=A4_NEW, previous=A4_OLD)

    cookie = answered(option, CLIENT, rotated, NOW_S + 1)

    assert cookie == (
        Standing.valid,
        answered(MINE, CLIENT, Secrets(newest=A4_NEW), NOW_S + 1).option,
    )
    assert answered(option, CLIENT, Secrets(newest=A4_NEW), NOW_S + 1).standing is Standing.invalid


@given(st.binary(max_size=48), st.integers(0, 2**33))
def test_no_stranger_is_believed(option: bytes, now_s: int) -> None:
    cookie = answered(option, CLIENT, Secrets(newest=A4_NEW, previous=A4_OLD), now_s)

    assert cookie.standing is not Standing.valid
    assert cookie.option[4:12] == (option[:8] if cookie.option else b"")


# -- secrets --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("newest", "previous"), [(b"x" * 15, None), (A1, b""), (b"", A1)])
def test_a_secret_of_another_length_is_none(newest: bytes, previous: bytes | None) -> None:
    with pytest.raises(ValueError, match="16 bytes"):
        Secrets(newest=newest, previous=previous)


def test_secrets_travel_but_are_never_shown() -> None:
    secrets = Secrets(newest=A1, previous=A4_OLD)

    sent = msgspec.msgpack.decode(msgspec.msgpack.encode(secrets), type=Secrets)

    assert sent == secrets
    assert repr(secrets) == str(secrets) == f"{secrets}" == "Secrets(...)"
