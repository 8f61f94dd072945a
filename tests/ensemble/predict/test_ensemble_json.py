"""`ensemble.json`: round trip, and validation of untrusted files."""

import json
from pathlib import Path
from typing import Any

import pytest

from core.errors import UserError
from ensemble.predict.ensemble_json import read_recipe, write_recipe


def test_a_checkpoint_that_is_a_link_is_named_as_such(tmp_path: Path) -> None:
    """And the way to it is the system's, which follows links of folders first."""
    (tmp_path / "store").mkdir()
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "a.safetensors").touch()
    (tmp_path / "store" / "a.safetensors").symlink_to(tmp_path / "real" / "a.safetensors")
    (tmp_path / "way").symlink_to(tmp_path / "store", target_is_directory=True)
    path = tmp_path / "way" / "e.json"
    write_recipe(path, [("a", 1, [tmp_path / "way" / "a.safetensors"])], ["Mass"], {})
    assert json.loads(path.read_text())["members"][0]["checkpoints"] == ["a.safetensors"]
    checkpoints, weights, _ = read_recipe(path)
    assert weights == [1]
    assert checkpoints[0].is_file()


RECIPE: dict[str, Any] = {
    "kind": "ensemble",
    "format_version": 1,
    "members": [
        {"name": "a", "weight": 3, "checkpoints": ["a/1.safetensors", "../b/2.safetensors"]},
        {"name": "b", "weight": 0, "checkpoints": ["c.safetensors"]},
        {"name": "c", "weight": 0.5, "checkpoints": ["d.safetensors"]},
    ],
    "classes": ["Mass"],
    "made_from": {},
}


def test_a_members_weight_is_shared_by_its_checkpoints(tmp_path: Path) -> None:
    path = tmp_path / "e.json"
    path.write_text(json.dumps(RECIPE))
    checkpoints, weights, _ = read_recipe(path)
    expected = ["a/1.safetensors", "../b/2.safetensors", "d.safetensors"]
    assert checkpoints == [tmp_path / name for name in expected]
    assert weights == [1.5, 1.5, 0.5]


@pytest.mark.parametrize(
    ("place", "key", "value", "expected"),
    [
        ("whole", "kind", "calibration", "not a valid ensemble.json"),
        ("whole", "members", [], "`$.members`"),
        ("whole", "members", [RECIPE["members"][0]] * 2, "is duplicate"),
        ("whole", "members", [RECIPE["members"][1]], "weight above 0"),
        ("whole", "classes", [], "`$.classes`"),
        ("whole", "classes", [""], "is empty or has a control character"),
        ("member", "weight", -1, "`$.members[0].weight`"),
        ("member", "checkpoints", [], "`$.members[0].checkpoints`"),
        ("member", "checkpoints", ["/etc/passwd"], "not a path relative"),
        ("member", "checkpoints", ["a\0b"], "control character"),
    ],
)
def test_a_recipe_that_choose_does_not_write_is_refused(
    tmp_path: Path, place: str, key: str, value: object, expected: str
) -> None:
    document = json.loads(json.dumps(RECIPE))
    (document if place == "whole" else document["members"][0])[key] = value
    path = tmp_path / "e.json"
    path.write_text(json.dumps(document))
    with pytest.raises(UserError) as error:
        read_recipe(path)
    assert expected in str(error.value)
    assert "\n" not in str(error.value)
