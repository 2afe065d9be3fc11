"""Unpacking trusts no layer: what is kept, what is refused, and that nothing leaves the tree."""

import os
import tarfile
import threading
from collections.abc import Iterable
from pathlib import Path

import pytest
from support.runtime_support import Entry, directory, hard_link, layer_of, symlink, tar_of

from trafficmgr.runtimes.embedded.layers import UnpackCancelledError
from trafficmgr.runtimes.embedded.unpack import Limits, UnpackError, unpack
from trafficmgr.wire.images import Layer


class Ground:
    """A place to unpack to, with something beside it that no layer may touch."""

    def __init__(self, folder: Path) -> None:
        self.blobs = folder / "blobs"
        self.root = folder / "outer" / "rootfs"
        self.root.mkdir(parents=True)
        self.secret = folder / "outer" / "secret"
        self.secret.write_text("untouched")

    def unpack(self, *layers: Iterable[Entry], limits: Limits | None = None) -> None:
        blobs = tuple(layer_of(self.blobs, tar_of(entries)) for entries in layers)
        unpack(blobs, str(self.root), limits=limits)

    def names(self) -> set[str]:
        return {str(path.relative_to(self.root)) for path in self.root.rglob("*")}

    def text(self, name: str) -> str:
        return (self.root / name).read_text()


@pytest.fixture
def ground(tmp_path: Path) -> Ground:
    return Ground(tmp_path)


# -- what is kept ---------------------------------------------------------------------------------


def test_files_modes_and_times_are_kept(ground: Ground) -> None:
    ground.unpack([directory("bin", 0o750), Entry("./bin/run", b"#!", mode=0o755)])

    assert ground.text("bin/run") == "#!"
    assert (ground.root / "bin/run").stat().st_mode & 0o7777 == 0o755
    assert (ground.root / "bin").stat().st_mode & 0o7777 == 0o750
    assert (ground.root / "bin/run").stat().st_mtime == 1_700_000_000


def test_setuid_and_setgid_are_dropped(ground: Ground) -> None:
    ground.unpack([Entry("su", mode=0o6755), directory("tmp", 0o3777)])

    assert (ground.root / "su").stat().st_mode & 0o7777 == 0o755
    assert (ground.root / "tmp").stat().st_mode & 0o7777 == 0o1777


def test_missing_parents_are_made(ground: Ground) -> None:
    ground.unpack([Entry("a/b/c", b"deep")])

    assert ground.text("a/b/c") == "deep"


@pytest.mark.parametrize("zipped", [False, True], ids=["plain", "gzip"])
def test_symlinks_are_stored_as_they_are(ground: Ground, zipped: bool) -> None:
    tar = tar_of([Entry("bin/busybox", b"box"), symlink("bin/sh", "/bin/busybox")])

    unpack((layer_of(ground.blobs, tar, zipped=zipped),), str(ground.root))

    assert str((ground.root / "bin/sh").readlink()) == "/bin/busybox"
    assert ground.text("bin/busybox") == "box"


def test_long_and_odd_names_survive(ground: Ground) -> None:
    long = "d" * 120 + "/" + "f" * 200
    ground.unpack([Entry(long, b"1"), Entry("smörgås \n.txt", b"2")])

    assert ground.text(long) == "1"
    assert ground.text("smörgås \n.txt") == "2"


def test_hard_links_share_one_file(ground: Ground) -> None:
    ground.unpack([Entry("a/one", b"1")], [hard_link("b/two", "a/one")])

    assert (ground.root / "a/one").samefile(ground.root / "b/two")


def test_hard_link_onto_itself_keeps_the_file(ground: Ground) -> None:
    ground.unpack([Entry("one", b"1")], [hard_link("one", "one")])

    assert ground.text("one") == "1"


def test_hard_link_to_a_symlink_does_not_follow_it(ground: Ground) -> None:
    ground.unpack([symlink("out", "../secret"), hard_link("also", "out")])

    assert str((ground.root / "also").readlink()) == "../secret"


def test_upper_layers_replace_lower_ones(ground: Ground) -> None:
    ground.unpack(
        [Entry("f", b"old"), Entry("d/below", b"x"), symlink("l", "../secret"), Entry("g", b"g")],
        [Entry("f", b"new"), Entry("d", b"file"), Entry("l", b"file"), directory("g")],
    )

    assert (ground.text("f"), ground.text("d"), ground.text("l")) == ("new", "file", "file")
    assert (ground.root / "g").is_dir()
    assert ground.secret.read_text() == "untouched"


def test_replacing_one_name_of_a_hard_link_keeps_the_other(ground: Ground) -> None:
    ground.unpack([Entry("one", b"old"), hard_link("two", "one")], [Entry("one", b"new")])

    assert (ground.text("one"), ground.text("two")) == ("new", "old")


def test_listed_directory_keeps_its_content(ground: Ground) -> None:
    ground.unpack([Entry("d/old", b"1")], [directory("d", 0o700), Entry("d/new", b"2")])

    assert ground.names() == {"d", "d/old", "d/new"}


# -- whiteouts ------------------------------------------------------------------------------------


def test_whiteout_removes_files_and_directories_of_lower_layers(ground: Ground) -> None:
    ground.unpack(
        [Entry("a/gone", b""), Entry("a/kept", b""), Entry("b/deep/gone", b"")],
        [Entry("a/.wh.gone"), Entry(".wh.b"), Entry("c/.wh.never-was")],
    )

    assert ground.names() == {"a", "a/kept"}


def test_opaque_whiteout_spares_its_own_layer_in_any_order(ground: Ground) -> None:
    ground.unpack(
        [Entry("d/old", b""), Entry("d/sub/old", b""), Entry("d/gone/old", b"")],
        [Entry("d/first", b""), Entry("d/sub/new", b""), Entry("d/.wh..wh..opq"), Entry("d/last")],
    )

    assert ground.names() == {"d", "d/first", "d/sub", "d/sub/new", "d/last"}


def test_whiteout_does_not_follow_a_symlink_out(ground: Ground) -> None:
    ground.unpack([symlink("l", "../secret")], [Entry(".wh.l")])

    assert ground.names() == set()
    assert ground.secret.read_text() == "untouched"


def test_bookkeeping_of_old_union_file_systems_is_ignored(ground: Ground) -> None:
    ground.unpack([directory(".wh..wh.plnk"), Entry(".wh..wh.orph/x"), Entry("f")])

    assert "f" in ground.names()
    assert ".wh..wh.plnk" not in ground.names()


# -- symlinks in the place of parents -------------------------------------------------------------


def test_parent_symlink_is_resolved_inside_the_tree(ground: Ground) -> None:
    """An absolute link is the image's, not the host's: /run -> /var/run is in most images."""
    ground.unpack([directory("var/run"), symlink("run", "/var/run")], [Entry("run/pid", b"7")])

    assert ground.text("var/run/pid") == "7"
    assert (ground.root / "run").is_symlink()


def test_directory_replaced_by_a_symlink_is_written_through_inside_only(ground: Ground) -> None:
    ground.unpack(
        [directory("etc"), Entry("d/x", b"")],
        [symlink("d", str(ground.secret.parent)), Entry("d/secret", b"hostile")],
    )

    assert ground.secret.read_text() == "untouched"
    inside = ground.root / str(ground.secret).lstrip("/")
    assert inside.read_text() == "hostile"


@pytest.mark.parametrize(
    "links",
    [
        [symlink("out", "..")],
        [symlink("out", "a/../../..")],
        [symlink("out", "/..")],
        [symlink("far", ".."), symlink("out", "far")],
    ],
    ids=["up", "up-later", "up-from-root", "chain"],
)
def test_parent_that_leads_out_is_refused(ground: Ground, links: list[Entry]) -> None:
    with pytest.raises(UnpackError, match='entry "out/secret": leads out of the tree'):
        ground.unpack([*links, Entry("out/secret", b"hostile")])

    assert ground.secret.read_text() == "untouched"


def test_symlinks_in_a_circle_are_refused(ground: Ground) -> None:
    with pytest.raises(UnpackError, match='entry "a/f": leads through more than 40 symlinks'):
        ground.unpack([symlink("a", "b"), symlink("b", "a"), Entry("a/f")])


# -- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("entry", "why"),
    [
        (Entry("../secret", b"x"), r'entry "\.\./secret": "\.\." in the name'),
        (Entry("a/../../secret", b"x"), r'"\.\." in the name'),
        (Entry("/etc/passwd", b"x"), 'entry "/etc/passwd": the absolute name'),
        (hard_link("l", "../secret"), r'entry "l": "\.\." in the name "\.\./secret"'),
        (hard_link("l", "/etc/passwd"), 'entry "l": the absolute name "/etc/passwd"'),
        (hard_link("l", "missing"), 'a hard link to "missing", which is no file'),
        (hard_link("l", "d"), 'a hard link to "d", which is no file'),
        (hard_link("l", "out/secret"), 'entry "l": leads out of the tree'),
        (Entry("null", kind=tarfile.CHRTYPE), 'entry "null": devices, fifos'),
        (Entry("disk", kind=tarfile.BLKTYPE), 'entry "disk": devices, fifos'),
        (Entry("pipe", kind=tarfile.FIFOTYPE), 'entry "pipe": devices, fifos'),
        (Entry("d/.wh.."), "a whiteout that names nothing"),
        (Entry("d/.wh..."), "a whiteout that names nothing"),
        (Entry("file/below"), 'entry "file/below": Not a directory'),
    ],
    ids=lambda value: value.info.name if isinstance(value, Entry) else "",
)
def test_hostile_entry_is_refused_by_name(ground: Ground, entry: Entry, why: str) -> None:
    with pytest.raises(UnpackError, match=why):
        ground.unpack([directory("d"), Entry("file"), symlink("out", ".."), entry])

    assert ground.secret.read_text() == "untouched"
    assert sorted(path.name for path in ground.root.parent.iterdir()) == ["rootfs", "secret"]


def test_nul_in_a_name_is_refused(ground: Ground) -> None:
    entry = Entry("harmless")
    entry.info.pax_headers = {"path": "evil\0name"}

    with pytest.raises(UnpackError, match="NUL"):
        ground.unpack([entry])


def test_too_many_entries_are_refused(ground: Ground) -> None:
    with pytest.raises(UnpackError, match="more than 3 entries"):
        ground.unpack([Entry("a"), Entry("b")], [Entry("c"), Entry("d")], limits=Limits(entries=3))


def test_too_many_bytes_are_refused_across_layers(ground: Ground) -> None:
    with pytest.raises(UnpackError, match="more than 3000 bytes"):
        ground.unpack(
            [Entry("a", b"x" * 2000)], [Entry("b", b"x" * 2000)], limits=Limits(size_bytes=3000)
        )


def test_small_blob_that_unzips_to_a_large_stream_is_refused(ground: Ground) -> None:
    bomb = layer_of(ground.blobs, tar_of([]) + bytes(5_000_000), zipped=True)

    with pytest.raises(UnpackError, match="bytes"):
        unpack((bomb,), str(ground.root), limits=Limits(size_bytes=1_000_000))


def test_huge_header_is_refused_before_it_is_in_memory(ground: Ground) -> None:
    huge = Entry("f")
    huge.info.pax_headers = {"comment": "x" * 5_000_000}

    with pytest.raises(UnpackError, match=r"a header of 5\d+ bytes is refused"):
        ground.unpack([huge])


def test_content_that_differs_from_diff_id_is_refused(ground: Ground) -> None:
    layer = layer_of(ground.blobs, tar_of([Entry("f")]))
    wrong = layer.but(diff_id="sha256:" + "0" * 64)

    with pytest.raises(UnpackError, match=r"its content has the hash sha256:[0-9a-f]{64}, the"):
        unpack((wrong,), str(ground.root))


def test_bytes_after_the_last_entry_count_for_diff_id(ground: Ground) -> None:
    layer = layer_of(ground.blobs, tar_of([Entry("f")]))
    Path(layer.path).write_bytes(Path(layer.path).read_bytes() + b"\0" * 512)

    with pytest.raises(UnpackError, match="has the hash"):
        unpack((layer,), str(ground.root))


@pytest.mark.parametrize("cut", [0, 100, 700, 2000])
def test_truncated_layer_is_refused(ground: Ground, cut: int) -> None:
    tar = tar_of([Entry("a", b"x" * 1000), Entry("b", b"y" * 1000)])[:cut]

    with pytest.raises(UnpackError, match="can't be unpacked"):
        unpack((layer_of(ground.blobs, tar),), str(ground.root))


def test_garbage_between_entries_is_refused(ground: Ground) -> None:
    """Python's tarfile takes it for the end and would silently drop the rest."""
    tar = bytearray(tar_of([Entry("a"), Entry("b")]))
    tar[512:1024] = b"?" * 512

    with pytest.raises(UnpackError, match="no header of a tar entry"):
        unpack((layer_of(ground.blobs, bytes(tar)),), str(ground.root))


def test_cut_gzip_stream_is_refused(ground: Ground) -> None:
    layer = layer_of(ground.blobs, tar_of([Entry("a", os.urandom(5000))]), zipped=True)
    Path(layer.path).write_bytes(Path(layer.path).read_bytes()[:3000])

    with pytest.raises(UnpackError, match="can't be unpacked"):
        unpack((layer,), str(ground.root))


def test_broken_gzip_stream_is_refused(ground: Ground) -> None:
    layer = layer_of(ground.blobs, tar_of([Entry("a", os.urandom(5000))]), zipped=True)
    blob = bytearray(Path(layer.path).read_bytes())
    blob[12:40] = b"\xff" * 28
    Path(layer.path).write_bytes(blob)

    with pytest.raises(UnpackError, match="can't be unpacked"):
        unpack((layer,), str(ground.root))


def test_zstd_is_refused_with_advice(ground: Ground) -> None:
    layer = layer_of(ground.blobs, tar_of([Entry("f")]))
    zstd = Layer(
        path=layer.path,
        media_type="application/vnd.oci.image.layer.v1.tar+zstd",
        digest=layer.digest,
        diff_id=layer.diff_id,
    )

    with pytest.raises(UnpackError, match=r'compressed by "zstd", .* build the image with gzip'):
        unpack((zstd,), str(ground.root))


def test_tar_without_an_end_marker_is_accepted(ground: Ground) -> None:
    tar = tar_of([Entry("a", b"x" * 512)])[:1024]

    unpack((layer_of(ground.blobs, tar),), str(ground.root))

    assert ground.text("a") == "x" * 512


def test_cancelled_unpacking_ends(ground: Ground) -> None:
    cancelled = threading.Event()
    cancelled.set()

    with pytest.raises(UnpackCancelledError):
        unpack(
            (layer_of(ground.blobs, tar_of([Entry("a")])),),
            str(ground.root),
            cancelled=cancelled,
        )
