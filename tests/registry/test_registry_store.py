"""Only verified content ever gets its name."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from trafficmgr.registry.store import CHUNK_BYTES, BlobStore, WrongContentError
from trafficmgr.wire.oci import digest_of

BODY = b"content"
DIGEST = digest_of(BODY)


def files(store: BlobStore) -> list[Path]:
    return [path for path in store.root.rglob("*") if path.is_file()]


async def chunks(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


def test_content_has_its_name_after_the_commit_and_not_before(store: BlobStore) -> None:
    with store.writer(DIGEST, len(BODY)) as writer:
        writer.write(BODY)
        assert not store.has(DIGEST)
        writer.commit()

    assert store.has(DIGEST)
    assert store.path(DIGEST) == store.root / "blobs" / "sha256" / DIGEST[7:]
    assert store.path(DIGEST).read_bytes() == BODY
    assert files(store) == [store.path(DIGEST)]


@pytest.mark.parametrize("body", [b"other", b"", BODY + b"!", b"c0ntent"])
@pytest.mark.parametrize("size", [None, len(BODY)])
def test_other_content_gets_no_name(store: BlobStore, body: bytes, size: int | None) -> None:
    def write() -> None:
        with store.writer(DIGEST, size) as writer:
            writer.write(body)
            writer.commit()

    with pytest.raises(WrongContentError):
        write()

    assert files(store) == []


def test_too_much_content_is_refused_before_it_fills_the_disk(store: BlobStore) -> None:
    with store.writer(DIGEST, len(BODY)) as writer:
        writer.write(BODY)
        with pytest.raises(WrongContentError, match="more than the 7 bytes"):
            writer.write(b"!")


def test_what_is_not_committed_is_thrown_away(store: BlobStore) -> None:
    with store.writer(DIGEST) as writer:
        writer.write(BODY)

    assert files(store) == []


@pytest.mark.parametrize("digest", ["", "sha256:", "sha256:../../x", "sha512:" + "0" * 128, "x"])
def test_only_a_digest_becomes_a_path(store: BlobStore, digest: str) -> None:
    with pytest.raises(ValueError, match="no sha256 digest"):
        store.path(digest)
    with pytest.raises(ValueError, match="no sha256 digest"):
        store.writer(digest)


async def test_a_large_blob_is_kept_as_it_arrives(store: BlobStore) -> None:
    parts = [bytes([number]) * (CHUNK_BYTES // 3) for number in range(10)]
    whole = b"".join(parts)

    await store.save(digest_of(whole), len(whole), chunks(*parts))

    assert await store.read(digest_of(whole)) == whole


async def test_an_empty_blob_is_one_too(store: BlobStore) -> None:
    await store.save(digest_of(b""), 0, chunks())
    assert await store.read(digest_of(b"")) == b""


async def test_what_is_not_here_is_none(store: BlobStore) -> None:
    assert await store.read(DIGEST) is None
    assert not store.has(DIGEST)


async def test_a_blob_may_be_put_twice(store: BlobStore) -> None:
    assert await store.put(BODY) == await store.put(BODY) == DIGEST
    assert files(store) == [store.path(DIGEST)]


async def test_a_new_owner_throws_away_what_was_half_written(store: BlobStore) -> None:
    await store.put(BODY)
    writer = store.writer(DIGEST)
    writer.write(b"half")
    left = BlobStore(store.root)

    left.sweep()

    assert files(left) == [left.path(DIGEST)]
    writer.close()
    left.close()
