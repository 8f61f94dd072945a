"""The demo: its commands, and its end at the first failure."""

from importlib import import_module
from pathlib import Path

import pytest

from benchmarks import demo
from core.config.command_line import parse
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


@pytest.mark.parametrize("method", demo.METHODS)
def test_the_flags_of_a_training_do_not_depend_on_defaults_of_the_sampler(method: str) -> None:
    words = next(words for words in demo.steps() if f"methods/{method}/train.py" in words)
    config = parse(import_module(f"methods.{method}.config").PRESETS, arguments=words[1:])
    assert config.run.out_dir == Path("demo", method)
    assert (config.model.model, config.loader.sampler) == ("resnet10t", "uniform")
    assert not config.model.pretrained


def test_the_first_step_that_fails_ends_it(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    words = [["-c", "print(1 + 1)"], ["-c", "raise SystemExit(3)"], ["-c", "print(5)"]]
    monkeypatch.setattr(demo, "steps", lambda: iter(words))
    code, out, _ = call(demo.main)
    assert code == 3
    assert out == "\npython -c 'print(1 + 1)'\n2\n\npython -c 'raise SystemExit(3)'\n"
