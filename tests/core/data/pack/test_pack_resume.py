"""Two packers on one folder, and a full disk, are told; the same command then goes on."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from core.data.pack import writer as pack_writing
from tests.conftest import Call
from tests.helpers.data.packs import check_pixels, images, packing
from tests.helpers.training.small_run import ROOT

__all__ = ["images"]


def test_a_second_packer_is_refused(images: Path, call: Call) -> None:
    # a lock holds against other processes only
    code = "import sys; from pathlib import Path; from core.io.lock import lock_folder\n"
    code += "lock = lock_folder(Path(sys.argv[1])); print('held', flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", code, images.parent / "pack"],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdin is not None
        holder.stdout.readline()
        status, _, err = call(*packing(images))
        holder.stdin.close()
    assert status == 2
    assert "another process is packing into" in err
    assert call(*packing(images))[0] == 0


@pytest.mark.skipif(sys.platform != "linux", reason="needs /dev/full")
def test_a_disk_that_is_full_in_the_middle_is_told_and_goes_on(
    images: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    decode = pack_writing.decode_blocks

    def fill_up(plan, blocks, index, folder, target, workers, note) -> None:
        decode(plan, blocks[:1], index, folder, target, workers, note)
        decode(plan, blocks[1:], index, folder, (Path("/dev/full"), 0), workers, note)

    monkeypatch.setattr(pack_writing, "decode_blocks", fill_up)
    code, _, err = call(*packing(images))
    assert code == 2
    assert err.count("\n") == 1
    assert "cannot be written: No space left on device" in err
    assert "the same command goes on" in err
    assert len((images.parent / "pack" / "pack.blocks.jsonl").read_text().splitlines()) == 1
    monkeypatch.setattr(pack_writing, "decode_blocks", decode)
    assert call(*packing(images))[0] == 0
    check_pixels(images.parent / "pack", images)


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="room cannot be reserved")
def test_no_room_for_the_array_is_told(
    images: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: int) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(os, "posix_fallocate", full)
    code, _, err = call(*packing(images))
    assert code == 2
    assert "No space left on device" in err
    monkeypatch.undo()
    assert call(*packing(images))[0] == 0
