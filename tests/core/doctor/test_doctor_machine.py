"""What the doctor says of packages, shared memory, threads and disk that are made up."""

import os
from pathlib import Path

import pytest
import torch
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from core.config.training import LoaderConfig
from core.data.loading.dataset import PREFETCHED
from core.doctor import machine, packages
from core.doctor.packages import Wanted, read_wanted
from core.errors import UserError
from core.runtime.worker_failures import lost_worker
from tests.helpers.doctor_output import marked, told


def wanted(pinned: dict[str, str] | None = None, **changed: object) -> Wanted:
    known: dict[str, object] = {
        "python": ">=3.11",
        "needed": [Requirement("numpy>=1"), Requirement("tyro>=1.0")],
        "extras": {name: [] for name in packages.EXTRAS},
        "pinned": None if pinned is None else {n: SpecifierSet(v) for n, v in pinned.items()},
        "checkout": True,
    }
    return Wanted(**(known | changed))  # type: ignore[arg-type]


def test_a_made_constraints_file(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text(
        '[project]\nname = "longtail-cxr"\nrequires-python = ">=3.11"\ndependencies = ["numpy"]\n'
        '[project.optional-dependencies]\ndicom = ["no-such-package>=2"]\n'
        'serve = ["longtail-cxr[dicom]"]\n'
    )
    (tmp_path / "constraints.txt").write_text("# ours\nNumPy==1.0.1  # old\nabsent==3\n-e .\n")
    found = read_wanted(tmp_path)
    assert found.pinned == {"numpy": SpecifierSet("==1.0.1"), "absent": SpecifierSet("==3")}
    doubt = marked(told(packages.check_packages, found), "!")
    assert "1 of 1 package" in doubt
    assert f"numpy {packages.installed('numpy')} (==1.0.1)" in doubt
    assert doubt.endswith("pip install -c constraints.txt -e .")
    extras = told(packages.check_extras, found)
    assert "extras installed: tensorboard, explain, export" in marked(extras, "✓")
    for name in ("dicom", "serve"):
        assert f"the extra {name} (" in marked(extras, "!")
        assert f'pip install -c constraints.txt -e ".[{name}]"' in marked(extras, "!")
    assert marked(extras, "!").count("no-such-package is missing") == 2


def test_the_versions_that_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    assert read_wanted().pinned is not None
    there = {"numpy": "2.4.6", "tyro": "1.2"}
    monkeypatch.setattr(packages, "installed", there.get)
    same = {name: f"=={version}" for name, version in there.items()}
    findings = told(packages.check_packages, wanted(same))
    assert findings == [("✓", "2 packages in the versions of constraints.txt")]
    # a build of the same version
    there["numpy"] = "2.4.6+local"
    assert not marked(told(packages.check_packages, wanted(same)), "!")
    there["tyro"] = "0.9"
    bad = marked(told(packages.check_packages, wanted(same)), "✗")
    assert bad == "1 package not as the project needs: tyro 0.9 is not >=1.0: " + (
        "pip install -c constraints.txt -e ."
    )


def test_installed_elsewhere_there_are_no_constraints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = read_wanted(tmp_path)
    assert found.pinned is None
    assert found.command("dicom") == 'pip install -U "longtail-cxr[dicom]"'
    assert any(one.name == "torch" for one in found.needed)
    assert not any(one.name == "pydicom" for one in found.needed)
    assert {one.name for one in found.extras["dicom"]} >= {"pydicom"}
    findings = told(packages.check_packages, wanted(None))
    assert "constraints.txt, the versions that are tested, is in a checkout" in (
        marked(findings, "!")
    )
    monkeypatch.setattr(packages, "PROJECT", "no-such-project")
    with pytest.raises(UserError, match="is not installed and no checkout"):
        read_wanted(tmp_path)


def test_python(monkeypatch: pytest.MonkeyPatch) -> None:
    assert told(packages.check_python, wanted())[0][0] == "✓"
    assert told(packages.check_python, wanted(python=">=4"))[0][0] == "✗"


def test_shared_memory_that_is_too_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loader = LoaderConfig(img_size=100, batch_size=10)
    # in training and in validation, so many batches of each worker wait
    worker = 2 * PREFETCHED * 10 * 100 * 100
    assert machine.shared_bytes(loader, 3) == 3 * worker
    for free, mark in ((3 * worker, "✓"), (3 * worker - 1, "✗"), (64, "✗")):
        monkeypatch.setattr(machine, "free_bytes", lambda _, free=free: free)
        findings = told(machine.check_shared_memory, loader, 3)
        assert findings[0][0] == mark
        if mark == "✗":
            assert f"give --num_workers {free // worker} or" in findings[0][1]
            assert "docker run --shm-size=1g" in findings[0][1]
        assert "for each process of a launch" in findings[0][1]
    monkeypatch.undo()
    monkeypatch.setattr(machine, "SHARED", tmp_path / "shm")
    mark, sentence = told(machine.check_shared_memory, loader, 3)[0]
    assert (mark, "shm is not there: give --num_workers 0" in sentence) == ("✗", True)
    # without workers none is needed
    assert told(machine.check_shared_memory, loader, 0)[0][0] == "✓"


def test_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for free, mark in ((1e12, "✓"), (1e9, "!"), (1e6, "✗")):
        monkeypatch.setattr(machine, "free_bytes", lambda _, free=free: free)
        assert told(machine.check_disk, tmp_path / "new" / "run")[0][0] == mark
    assert not (tmp_path / "new").exists()
    (tmp_path / "file").write_text("")
    mark, sentence = told(machine.check_disk, tmp_path / "file" / "run")[0]
    assert (mark, "lies below a file" in sentence) == ("✗", True)


def test_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "usable_cores", lambda: 4)
    monkeypatch.setattr(machine, "cpu_quota", lambda: None)
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    for threads, asked, mark, mend in (
        (4, None, "✓", ""),
        (1, "1", "!", "set OMP_NUM_THREADS=4"),
        (9, "9", "!", "set OMP_NUM_THREADS=4"),
    ):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
        if asked:
            monkeypatch.setenv("OMP_NUM_THREADS", asked)
        findings = told(machine.check_threads)
        assert findings[0][0] == mark
        assert mend in findings[0][1]
    monkeypatch.setattr(machine, "cpu_quota", lambda: 1.5)
    assert "may use 1.5 at a time" in marked(told(machine.check_threads), "!")


def test_limits_of_a_container(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_CGROUP", tmp_path)
    assert machine.cpu_quota() is None
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert machine.cpu_quota() is None
    (tmp_path / "cpu.max").write_text("150000 100000\n")
    assert machine.cpu_quota() == 1.5
    whole = machine.free_memory()
    assert whole is not None
    assert 0 < whole < os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    (tmp_path / "memory.max").write_text("1000000\n")
    (tmp_path / "memory.current").write_text("400000\n")
    assert machine.free_memory() == 600_000
    # files that were read give way
    (tmp_path / "memory.stat").write_text("anon 100000\ninactive_file 300000\nfile 350000\n")
    assert machine.free_memory() == 900_000
    assert told(machine.check_memory)[0][0] == "!"


def test_a_driver_without_its_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    monkeypatch.setattr(machine, "_NVIDIA", tmp_path / "version")
    assert told(machine.check_accelerator)[0][0] == "!"
    (tmp_path / "version").write_text("NVRM")
    mark, sentence = told(machine.check_accelerator)[0]
    assert (mark, "install the PyTorch that fits the driver" in sentence) == ("✗", True)


def test_errors_of_workers_point_to_the_doctor_with_their_number() -> None:
    told_to_user = str(lost_worker(RuntimeError("DataLoader worker (pid 3): Bus error")))
    assert "`python -m core.doctor --num_workers NUMBER`" in told_to_user
