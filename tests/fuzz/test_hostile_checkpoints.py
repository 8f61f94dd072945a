"""A checkpoint, a state or a kept block is taken up as it was written, or refused by its name.

What a file says of itself is the stranger's to choose, its checksum too: that finds damage, and is
no signature.
"""

import json
import os
from typing import Any

import pytest
import torch
from safetensors.torch import load, save

from tests.helpers.fault_table import Fault
from tests.helpers.fuzz.forged_safetensors import (
    header_of,
    lying_headers,
    resealed,
    split,
    with_facts,
)
from tests.helpers.fuzz.harness import Outcome, Watched

FAULT = "hostile checkpoint"
METHODS = ("standard_head", "csra_db_cas", "label_coupling")
KINDS = (*METHODS, "start", "couplings", "weights", "state", "block")
SMALL = ("state", "block")


@pytest.fixture(scope="module", autouse=True)
def whole(watched: Watched) -> None:
    (watched.out / "base").mkdir()
    (made,) = watched.call("checkpoint_targets:write_all", [[str(watched.out / "base")]])
    assert made.kind == "ok", made.text


def sound(watched: Watched, name: str) -> bytes:
    return (watched.out / "base" / f"{name}.safetensors").read_bytes()


def tried(
    watched: Watched, fault: Fault, name: str, files: dict[str, bytes], seal: bool
) -> list[Outcome]:
    """None of these files is more than used or refused; which it was."""
    fault(FAULT, len(files))
    paths, whats = [], list(files)
    for number, data in enumerate(files.values()):
        path = watched.out / f"{number}.safetensors"
        path.write_bytes(data)
        if seal:
            resealed(path)
        paths.append(path)
    outcomes = watched.call("checkpoint_targets:at", [[name, str(path)] for path in paths])
    for path in paths:
        path.unlink()
    bad = {
        what: (one.kind, one.text[-1500:])
        for what, one in zip(whats, outcomes, strict=True)
        if not one.good
    }
    assert bad == {}
    return outcomes


def test_sound_files_are_taken_up(watched: Watched, fault: Fault) -> None:
    fault(FAULT, len(KINDS))
    outcomes = watched.call("checkpoint_targets:whole", [[name] for name in KINDS])
    assert [outcome.text for outcome in outcomes if outcome.kind != "ok"] == []


@pytest.mark.parametrize("seal", [False, True], ids=["damaged", "with its checksum"])
def test_every_byte_of_the_header(watched: Watched, fault: Fault, soak: bool, seal: bool) -> None:
    """Of small files each with three masks, of a model each with one."""
    inputs: list[list[Any]] = []
    for name in (*SMALL, "standard_head", "weights") if not seal else (*SMALL, "couplings"):
        length = 8 + len(split(sound(watched, name))[0])
        masks = (0x01, 0x20, 0xFF) if name in SMALL else (0x04,)
        if name == "weights":
            continue
        step = 1 if soak else length // 12
        inputs += [[name, at, mask, seal] for mask in masks for at in range(0, length, step)]
    fault(FAULT, len(inputs))
    assert watched.bad("checkpoint_targets:flip", inputs) == []


def test_a_file_that_was_cut_is_refused(watched: Watched, fault: Fault, soak: bool) -> None:
    """At every 4 KiB, and small ones at every seventh byte."""
    inputs = []
    for name in ("standard_head", "weights", *SMALL):
        size = len(sound(watched, name))
        step = 7 if name in SMALL else 4096
        inputs += [[name, at] for at in range(0, size, step if soak else size // 6)]
    fault(FAULT, len(inputs))
    outcomes = watched.call("checkpoint_targets:cut", inputs)
    assert [one.text for one in outcomes if one.kind != "refused"] == []


@pytest.mark.parametrize("name", ["state", "standard_head", "weights", "block", "couplings"])
def test_headers_that_lie(watched: Watched, fault: Fault, soak: bool, name: str) -> None:
    files = lying_headers(sound(watched, name))
    if not soak:
        # a name that would steer the terminal was printed as it is
        files = {
            what: data
            for place, (what, data) in enumerate(files.items())
            if place % 4 == 0 or "x1b" in what
        }
    tried(watched, fault, name, files, seal=True)


def test_weights_that_do_not_fill_the_network(watched: Watched, fault: Fault) -> None:
    own = load(sound(watched, "weights"))
    name = "conv_stem.weight"
    stem = own[name]
    changed = {
        "none": {},
        "few": dict(list(own.items())[:12]),
        "all but one": {n: tensor for n, tensor in own.items() if n != "bn1.running_var"},
        "prefix": {f"model.{n}": tensor for n, tensor in own.items()},
        "a tensor named as timm's own key": own | {"state_dict": stem.clone()},
        "deeper": own | {f"blocks.{n}.bn1.weight": stem.clone() for n in range(90, 2000)},
        "steering": own | {"\x1b[2J\n": stem.clone()},
        "long name": own | {"a" * 100_000: stem.clone()},
    }
    odd = {
        "NaN": stem * torch.nan,
        "infinite halves": (stem + torch.inf).half(),
        "too large": stem.double() + 1e300,
        "integers": stem.to(torch.int8),
        "truths": stem > 0,
        "complex": stem.to(torch.complex64),
        "eight bits": torch.full_like(stem, torch.nan).to(torch.float8_e4m3fn),
        "empty": stem[:0],
        "scalar": stem[0, 0, 0, 0].clone(),
        "wider": torch.cat([stem, stem]),
        "four channels": stem.repeat(1, 4, 1, 1),
        "deep": stem[(None,) * 20],
    }
    changed |= {what: own | {name: tensor} for what, tensor in odd.items()}
    files = {what: save(tensors) for what, tensors in changed.items()}
    outcomes = tried(watched, fault, "weights", files, seal=False)
    assert [what for what, one in zip(files, outcomes, strict=True) if one.kind != "refused"] == []


def told(watched: Watched, name: str) -> dict[str, Any]:
    return json.loads(header_of(sound(watched, name))["__metadata__"]["facts"])


METHOD_NAMES: list[Any] = [
    *("../x", "os", "a.b", "", "__init__", "initial", "standard_head/../x", 5, None, [], "\0"),
]
MODELS: list[Any] = [
    *("hf-hub:someone/model", "hf_hub:someone/model", "local-dir:/tmp", "hf-hub:a/b@main", ""),
    *("x" * 10**6, "vit_giant_patch14_dinov2", "eva02_enormous_patch14_clip_224"),
    *("resnet18?num_classes=10", "../../x", "resnet18.a1_in1k", "resnet18.nothing"),
    *("timm/resnet18", "test_vit", "\x1b[2J", None, 5, [], {}),
]
HUGE = [10**9, -1, 0, "64", 64.0, True, None, [], {}, float("nan"), 1e308, 10**400, "nan", "1e999"]


CLASS_NAMES: list[Any] = [
    *(["a", "a", "b"], ["a", "b", ""], ["a", "b", 3], "abc", {"a": 1}, [[]], ["__proto__"] * 3),
    *(["\x1b[2J", "a", "b"], ["a\nb", "c", "d"], ["\ud800", "a", "b"], ["\u202ea", "b", "c"]),
    *([f"c{place}" for place in range(10**number)] for number in (4, 6)),
    ["x" * 10**6, "a", "b"],
]


def odd_facts(watched: Watched) -> dict[str, tuple[str, str]]:
    """(kind, facts as JSON) of files that are whole and say something odd."""
    made: dict[str, tuple[str, str]] = {}

    def say(name: str, what: str, **changes: Any) -> None:
        facts = told(watched, name)
        settings = facts.get("model", {})
        model = changes.pop("model", {})
        facts |= changes | (
            {"model": settings | model} if isinstance(model, dict) else {"model": model}
        )
        made[f"{name} {what}"] = name, json.dumps(facts)

    for method in METHOD_NAMES:
        say("standard_head", f"method {method!r}", method=method)
    for model in MODELS:
        for name in ("standard_head", "start"):
            say(name, f"model {str(model)[:20]!r}", model={"model": model})
    for value in HUGE:
        say("standard_head", f"size {value!r:.20}", img_size=value)
        for key in (
            *("drop_rate", "drop_path_rate", "grad_checkpointing", "weights_file", "init_from"),
            "x",
        ):
            say("standard_head", f"{key} {value!r:.20}", model={key: value})
        for key in ("csra_heads", "csra_lambda", "csra_scale"):
            say("csra_db_cas", f"{key} {value!r:.20}", model={key: value})
        for key in ("refiner", "coupling_alpha", "drop_rate"):
            say("label_coupling", f"{key} {value!r:.20}", model={key: value})
        for key in (
            *("fold", "folds", "class_names", "format_version", "settings", "metrics", "model"),
        ):
            say("couplings", f"{key} {value!r:.20}", **{key: value})
            say("start", f"{key} {value!r:.20}", **{key: value})
        for key in ("run", "phase", "progress", "scale"):
            say("state", f"{key} {value!r:.20}", **{key: value})
        for key in told(watched, "state")["progress"]:
            say(
                "state",
                f"{key} {value!r:.20}",
                progress=told(watched, "state")["progress"] | {key: value},
            )
        say("block", f"unreadable {value!r:.20}", unreadable=value)
        say("block", f"pair {value!r:.20}", unreadable=[value])
        say("block", f"position {value!r:.20}", unreadable=[[value, "x"]])
    for number, names in enumerate(CLASS_NAMES):
        for name in ("standard_head", "label_coupling", "couplings", "start"):
            say(name, f"classes {number}", class_names=names)
    texts = [
        *("", "null", "[" * 10**6, '{"a":' * 10**6, "{}" * 9, "NaN", "1" * 10**6),
        '{"format_version": 1e999}',
    ]
    for number, text in enumerate(
        [*texts, "[" + "[]," * 5_000_000 + "[]]", '{"format_version": 2, ' * 3]
    ):
        for name in ("standard_head", "state"):
            made[f"{name} text {number}"] = name, text
    return made


# a traceback, a hang or more than 2 GB before they were refused
FOUND = (
    *("standard_head method '\\x00'", "standard_head model '\\x1b[2J'", "state progress []"),
    *("standard_head model 'vit_giant_patch14_di'", "state progress nan"),
    *("csra_db_cas csra_lambda 10000000000000000000", "block unreadable None", "block pair 0"),
    *("label_coupling coupling_alpha 10000000000000000000", "block position 'nan'"),
)


def test_facts_that_are_odd(watched: Watched, fault: Fault, soak: bool) -> None:
    found = odd_facts(watched)
    assert set(FOUND) <= found.keys()
    if not soak:
        found = dict(list(found.items())[::25]) | {what: found[what] for what in FOUND}
    for name in KINDS:
        files = {
            what: with_facts(sound(watched, name), text)
            for what, (kind, text) in found.items()
            if kind == name
        }
        if files:
            tried(watched, fault, name, files, seal=True)


def test_what_is_no_file(watched: Watched, fault: Fault) -> None:
    pipe, folder, zero = (
        watched.out / f"{name}.safetensors" for name in ("pipe", "folder", "zero")
    )
    os.mkfifo(pipe)
    folder.mkdir()
    zero.symlink_to("/dev/zero")
    inputs = [[name, str(path)] for name in KINDS[:-1] for path in (pipe, folder, zero)
              if name != "weights" or path != pipe]  # fmt: skip
    fault(FAULT, len(inputs))
    outcomes = watched.call("checkpoint_targets:at", inputs)
    told = [one.text for one in outcomes if one.kind != "refused"]
    assert told == []
