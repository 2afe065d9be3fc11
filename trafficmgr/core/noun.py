"""What all nouns have in common: they are frozen, typed, and stored as they stand.

Time is seconds on CLOCK_BOOTTIME (`*_at`, `*_since`), durations end in `_s`, shares are per cent
(`*_pct`). Nouns are stored in the journal and sent to workers, so a field that is added later needs
a default.
"""

from typing import Any, Self, dataclass_transform

import msgspec
from msgspec.structs import replace


@dataclass_transform(
    frozen_default=True, kw_only_default=True
)  # what msgspec inherits, mypy must be told
class Noun(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A frozen value; `but` makes the next one."""

    def but(self, **changes: Any) -> Self:  # noqa: ANN401  the field types are checked by evolve's tests
        """Return the same value with some fields changed."""
        return replace(self, **changes)
