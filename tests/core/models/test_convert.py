"""A PyTorch file becomes .safetensors with the same tensors, and nothing in it is run."""

import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from core.models.convert import find_state_dicts, main
from tests.conftest import Call

FILES = Path(__file__).parent / "pytorch_files"
HEAD = torch.arange(6.0).reshape(2, 3).T
# tensors that are tied, transposed and in another memory format
PLAIN = {"stem.weight": torch.arange(54.0).reshape(2, 3, 3, 3), "head.weight": HEAD, "again": HEAD}
LARGE = {"fc.weight": torch.zeros(20, 20)}
STUDENT = {"blocks.0.weight": torch.arange(4.0).reshape(2, 2), "norm.bias": torch.ones(2).half()}
TEACHER = {name: tensor + 1 for name, tensor in STUDENT.items()}


def rewritten(
    source: Path, path: Path, change: Callable[[bytes], bytes], kind: int = zipfile.ZIP_STORED
) -> Path:
    """A copy of a PyTorch file with another pickle in it."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(path, "w", kind) as new:
        for name in old.namelist():
            data = old.read(name)
            new.writestr(name, change(data) if name.endswith("data.pkl") else data)
    return path


@pytest.mark.parametrize(
    ("name", "words", "expected"),
    [
        ("plain", "", PLAIN),
        ("nested", "", PLAIN),
        # with argparse.Namespace, NumPy scalars, a dtype and an optimizer; wrapped for two GPUs
        ("training", "", TEACHER),
        ("training", "--key student", STUDENT),
    ],
)
def test_conversion(
    name: str, words: str, expected: dict[str, torch.Tensor], call: Call, tmp_path: Path
) -> None:
    path = tmp_path / "w.safetensors"
    code, printed, error = call(main, FILES / f"{name}.pth", path, *words.split())
    assert code == 0, error
    found = load_file(path)
    assert found.keys() == expected.keys()
    for one, tensor in expected.items():
        assert (found[one].dtype, found[one].tolist()) == (tensor.dtype, tensor.tolist())
        assert f"{one}  {tuple(tensor.shape)}  {str(tensor.dtype)[6:]}" in printed


def test_a_file_of_numpy_1(call: Call, tmp_path: Path) -> None:
    old = rewritten(
        FILES / "training.pth",
        tmp_path / "old.pth",
        lambda data: data.replace(b"numpy._core.multiarray", b"numpy.core.multiarray"),
    )
    assert call(main, old, tmp_path / "w.safetensors")[0] == 0
    assert load_file(tmp_path / "w.safetensors").keys() == TEACHER.keys()


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({"iteration": torch.tensor(3), "weights_of_mine": LARGE}, LARGE),
        (
            {"ema": {"decay": torch.tensor(0.9), "shadow": LARGE}, "model": PLAIN | LARGE},
            PLAIN | LARGE,
        ),
        ({"scale": torch.tensor(3.0), "note": "x"}, {"scale": 0}),
    ],
)
def test_a_lone_scalar_does_not_win(content: Any, expected: dict[str, Any]) -> None:
    first, *_ = find_state_dicts(content).values()
    assert expected.keys() <= first.keys()


def flipped(data: bytes, place: int) -> bytes:
    at = place % len(data)
    return data[:at] + bytes([data[at] ^ 0x55]) + data[at + 1 :]


def refusal(call: Call, source: Path, output: Path, *words: str) -> str:
    before = sorted(output.parent.iterdir())
    code, _, error = call(main, source, output, *words)
    assert (code, error.count("\n")) == (2, 1), error
    assert sorted(output.parent.iterdir()) == before
    return error


def test_code_in_a_file_is_refused_by_name_and_not_run(call: Call, tmp_path: Path) -> None:
    ran, output = tmp_path / "ran", tmp_path / "w.safetensors"
    code = f"cos\nmkdir\n(S'{ran}'\ntR.".encode()
    hostile = rewritten(FILES / "plain.pth", tmp_path / "hostile.pth", lambda _: code)
    assert "holds os.mkdir, which" in refusal(call, hostile, output)
    hostile.write_bytes(code)
    refusal(call, hostile, output)
    assert "fractions.Fraction" in refusal(call, FILES / "fraction.pth", output)
    sentence = refusal(call, FILES / "network.pth", output)
    assert "is a whole network" in sentence
    assert sentence.count("`") == 6
    assert not ran.exists()


def test_odd_contents(call: Call, tmp_path: Path) -> None:
    source, output = tmp_path / "odd.pth", tmp_path / "w.safetensors"
    for name in ("odd_name", "metadata"):
        assert "lack data or a valid name (" in refusal(call, FILES / f"{name}.pth", output)
    # NumPy scalars are allowed
    assert "holds fractions.Fraction, which" in refusal(call, FILES / "mixed.pth", output)
    source.write_text("hello world\n")
    assert "(KeyError: 101)" in refusal(call, source, output)
    _, _, error = call(main, tmp_path / "none.pth", tmp_path / "none" / "w.safetensors")
    assert "none is not there: create it first" in error


def test_a_compressed_file(call: Call, tmp_path: Path) -> None:
    """A small one could fill the memory."""
    source = rewritten(FILES / "plain.pth", tmp_path / "a.pth", bytes, zipfile.ZIP_DEFLATED)
    assert "(it is compressed)" in refusal(call, source, tmp_path / "w.safetensors")


def test_damaged_files(call: Call, tmp_path: Path) -> None:
    """A pickle with any byte changed, and a file cut anywhere."""
    data, output = (FILES / "training.pth").read_bytes(), tmp_path / "w.safetensors"
    source = tmp_path / "odd.pth"
    for length in range(0, len(data) - 22, 97):
        source.write_bytes(data[:length])
        refusal(call, source, output)
    for place in range(0, 272, 2):
        path = rewritten(FILES / "plain.pth", source, partial(flipped, place=place))
        code, _, error = call(main, path, output, "--overwrite")
        assert code == 0 or (code, error.count("\n")) == (2, 1), (place, error)


@pytest.mark.parametrize(
    ("source", "output", "words", "sentence"),
    [
        ("plain.pth", "old.safetensors", "", "exists: choose another path, or give --overwrite"),
        ("plain.pth", "w.pth", "", "must end in .safetensors"),
        ("none.pth", "w.safetensors", "", "is not there"),
        ("training.pth", "w.safetensors", "--key studnt", "it has teacher, student"),
    ],
)
def test_refused(
    source: str, output: str, words: str, sentence: str, call: Call, tmp_path: Path
) -> None:
    (tmp_path / "old.safetensors").write_bytes(b"x")
    assert sentence in refusal(call, FILES / source, tmp_path / output, *words.split())
    assert (tmp_path / "old.safetensors").read_bytes() == b"x"
