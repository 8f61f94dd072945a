"""The demo: its commands, and its end at the first failure."""

from pathlib import Path

import pytest

from benchmarks import demo
from tests.conftest import Call


def test_the_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    checkpoints = [f"demo/{method}/net_fold1.safetensors" for method in sorted(demo.METHODS)]
    for path in map(Path, checkpoints):
        path.parent.mkdir(parents=True)
        path.touch()
        path.with_suffix(".state.safetensors").touch()
    steps = [[*words] for words in demo.steps()]
    scripts = [f"methods/{method}/train.py" for method in demo.METHODS]
    programs = ["core.data.phantom", *scripts, *["ensemble.infer"] * 4, "ensemble.evaluate"]
    assert [words[words[0] == "-m"] for words in steps] == programs
    predicted = [words[-1] for words in steps[4:8]]
    assert [words[3] for words in steps[4:7]] == [
        f"{Path(output).with_suffix('')}/net_fold1.safetensors" for output in predicted[:3]
    ]
    assert steps[7][3:6] == checkpoints
    assert steps[8][3:7] == [predicted[3], *predicted[:3]]
    # the demo may be run again
    assert all("--overwrite" in words for words in steps[4:])


def test_the_first_step_that_fails_ends_it(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    words = [["-c", "print(1 + 1)"], ["-c", "raise SystemExit(3)"], ["-c", "print(5)"]]
    monkeypatch.setattr(demo, "steps", lambda: iter(words))
    code, out, _ = call(demo.main)
    assert code == 3
    assert out == "\npython -c 'print(1 + 1)'\n2\n\npython -c 'raise SystemExit(3)'\n"
