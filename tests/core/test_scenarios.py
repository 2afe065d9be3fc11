"""Every file in tests/scenarios is a story whose transcript must come out word for word.

To write the transcripts anew after a change that is meant: `REWRITE=1 pytest tests/core`, and read
the diff; it is the review.
"""

import os
from pathlib import Path

import pytest
from support.story import tell

FILES = sorted((Path(__file__).parent.parent / "scenarios").glob("*.txt"))
RULER = "-" * 72 + "\n"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_story_comes_out_as_written(path: Path) -> None:
    story, _, written = path.read_text().partition(RULER)

    told = tell(story)

    if os.environ.get("REWRITE"):
        path.write_text(story + RULER + told)
    else:
        assert told == written


def test_there_are_stories() -> None:
    assert len(FILES) >= 10
