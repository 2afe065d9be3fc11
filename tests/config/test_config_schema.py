"""The JSON Schema, and the list of keys that the reference must document."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from trafficmgr.config import later, schema
from trafficmgr.config.document import read

FOLDER = Path(__file__).parents[2] / "config"


def test_the_schema_in_config_is_up_to_date() -> None:
    made = subprocess.run(
        [sys.executable, "-m", "trafficmgr.config.schema"],
        capture_output=True,
        text=True,
        check=True,
        cwd=FOLDER.parent,
        timeout=60,
    ).stdout

    assert (FOLDER / "schema.json").read_text() == made, (
        "run: python -m trafficmgr.config.schema > config/schema.json"
    )


def test_every_key_stands_in_the_reference_below_a_comment() -> None:
    text = (FOLDER / "example.yaml").read_text()
    keys = {part for loc in read(FOLDER / "example.yaml").places for part in loc}

    assert schema.known_keys() - keys == set()
    for key in schema.known_keys():
        assert re.search(rf"# .*\n( *(- )?{key}:)|# .*\b{key}\b|{{.*\b{key}:", text), key


def test_every_key_has_a_description() -> None:
    made = schema.json_schema()
    for mapping in [made, *made["$defs"].values()]:
        for key, value in mapping["properties"].items():
            shape = value.get("$ref", "").rpartition("/")[2]
            assert value.get("description") or made["$defs"][shape]["description"], key


def test_defaults_are_shown_as_people_write_them() -> None:
    endpoint = schema.json_schema()["$defs"]["EndpointShape"]["properties"]

    assert endpoint["ttl"]["default"] == "10s"
    assert endpoint["max_revisions"]["default"] == 3


def test_unknown_keys_are_errors_in_editors_too() -> None:
    made = schema.json_schema()

    assert all(shape["additionalProperties"] is False for shape in (made, *made["$defs"].values()))


@pytest.mark.parametrize("shape", sorted(later.LATER_KEYS))
def test_what_is_built_is_no_longer_announced(shape: str) -> None:
    keys = set(schema.keys_of(shape))

    assert not keys & later.LATER_KEYS[shape]
