"""The doctor's page on packages, accelerator, threads, memory and disk, with synthetic values."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from core.config.training import LoaderConfig
from core.data.loading.dataset import PREFETCHED
from core.doctor import environment
from core.doctor.__main__ import main
from core.runtime.worker_failures import explain_lost_worker
from tests.conftest import Call
from tests.helpers.doctor import findings_of, listed, marked


def test_without_a_flag_it_checks_the_computer_alone(call: Call) -> None:
    code, out, _ = call(main)
    found = listed(out)
    assert "Environment" in out
    assert "Data" not in out
    assert f"PyTorch {torch.__version__}" in marked(found, "✓")
    assert code == int(bool(marked(found, "✗")))


def test_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needs = ["NumPy>=1", "tyro>=1.0", "absent", 'pydicom; extra == "dicom"', 'x; extra == "dev"']
    monkeypatch.setattr(environment.metadata, "requires", lambda _: needs)
    versions = {"longtail_cxr": "0.2.0", "numpy": "2.4.6+local", "tyro": "0.9"}
    monkeypatch.setattr(environment, "installed", lambda: versions)
    pins = tmp_path / "constraints.txt"
    pins.write_text("# ours\nnumpy==2.4.6\ntyro==1.2\n")
    found = findings_of(environment.check_packages, pins)
    assert marked(found, "✗") == (
        "packages do not meet the requirements: tyro 0.9 is not >=1.0, absent is missing: "
        "pip install -c constraints.txt -e ."
    )
    assert marked(found, "✓").endswith(", without the extras dicom")
    needs.remove("absent")
    versions["tyro"] = "1.1"
    doubt = marked(findings_of(environment.check_packages, pins), "!")
    assert doubt.startswith("packages differ from constraints.txt: tyro 1.1 (1.2)")
    # installed elsewhere there are no constraints
    ((mark, _),) = findings_of(environment.check_packages, tmp_path / "none")
    assert mark == "✓"
    versions.clear()
    found = findings_of(environment.check_packages, tmp_path / "none")
    assert marked(found, "✗").endswith("are unknown: pip install -U longtail-cxr")


def set_free(monkeypatch: pytest.MonkeyPatch, free: float) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=int(free)))


def test_shared_memory_that_is_too_small(monkeypatch: pytest.MonkeyPatch) -> None:
    loader = LoaderConfig(img_size=100, batch_size=10)
    # in training and in validation, so many batches of each worker wait
    worker = 2 * PREFETCHED * 10 * 100 * 100
    for free, mark in ((3 * worker, "✓"), (3 * worker - 1, "✗"), (64, "✗")):
        set_free(monkeypatch, free)
        ((found, sentence),) = findings_of(environment.check_shared_memory, loader, 3)
        assert found == mark
        if mark == "✗":
            assert f"give --num_workers {free // worker} or" in sentence
            assert "docker run --shm-size=1g" in sentence
    assert findings_of(environment.check_shared_memory, loader, 0)[0][0] == "✓"


def test_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for free, mark in ((1e12, "✓"), (1e9, "!"), (1e6, "✗")):
        set_free(monkeypatch, free)
        assert findings_of(environment.check_disk, tmp_path / "new" / "run")[0][0] == mark
    assert not (tmp_path / "new").exists()
    (tmp_path / "file").write_text("")
    bad = marked(findings_of(environment.check_disk, tmp_path / "file" / "run"), "✗")
    assert "lies below a file" in bad


@pytest.mark.parametrize(("threads", "asked", "mark"), [(4, "", "✓"), (1, "1", "!"), (9, "9", "!")])
def test_threads(monkeypatch: pytest.MonkeyPatch, threads: int, asked: str, mark: str) -> None:
    monkeypatch.setattr(environment, "usable_cores", lambda: 4)
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if asked:
        monkeypatch.setenv("OMP_NUM_THREADS", asked)
    ((found, sentence),) = findings_of(environment.check_threads)
    assert (found, "set OMP_NUM_THREADS=4" in sentence) == (mark, mark == "!")


def test_memory_within_a_containers_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "_LIMIT", tmp_path / "memory.max")
    (tmp_path / "memory.max").write_text("600000\n")
    assert "memory: 0.6 MB free" in marked(findings_of(environment.check_memory), "!")
    (tmp_path / "memory.max").write_text("max\n")
    assert "0.6 MB" not in findings_of(environment.check_memory)[0][1]


def test_a_driver_without_its_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    monkeypatch.setattr(environment, "_NVIDIA", tmp_path / "version")
    assert findings_of(environment.check_accelerator)[0][0] == "!"
    (tmp_path / "version").write_text("NVRM")
    bad = marked(findings_of(environment.check_accelerator), "✗")
    assert "install the PyTorch for this driver" in bad


def test_errors_of_workers_point_to_the_doctor_with_their_number() -> None:
    sentence = str(explain_lost_worker(RuntimeError("DataLoader worker (pid 3): Bus error")))
    assert "`python -m core.doctor --num_workers NUMBER`" in sentence
