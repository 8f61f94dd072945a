"""Hostile checkpoints, states and prediction blocks: read as written, or refused by name.

The metadata of a file is under the attacker's control, its checksum too: that finds damage, and is
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
from tests.helpers.fuzz.text.cases import leaves, texts_of_json

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
    for name in (*SMALL, "couplings" if seal else "standard_head"):
        length = 8 + len(split(sound(watched, name))[0])
        masks = (0x01, 0x20, 0xFF) if name in SMALL else (0x04,)
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
def test_headers_that_do_not_match_the_content(
    watched: Watched, fault: Fault, soak: bool, name: str
) -> None:
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
        "prefixes": {f"{'a.' * 50_000}{n}": tensor for n, tensor in own.items()},
        "many": {f"a{n % 400}.blocks.0.{n}": stem[0, 0, 0, 0].clone() for n in range(30_000)},
        "a tensor named as timm's own key": own | {"state_dict": stem.clone()},
        "deeper": own | {f"blocks.{n}.bn1.weight": stem.clone() for n in range(90, 2000)},
        "steering": own | {"\x1b[2J\n": stem.clone()},
        "long name": own | {"a" * 100_000: stem.clone()},
    }
    odd = {
        "NaN": stem * torch.nan,
        "too large": stem.double() + 1e300,
        "integers": stem.to(torch.int8),
        "complex": stem.to(torch.complex64),
        "eight bits": torch.full_like(stem, torch.nan).to(torch.float8_e4m3fn),
        "empty": stem[:0],
        "scalar": stem[0, 0, 0, 0].clone(),
        "wider": torch.cat([stem, stem]),
        "deep": stem[(None,) * 20],
    }
    changed |= {what: own | {name: tensor} for what, tensor in odd.items()}
    files = {what: save(tensors) for what, tensors in changed.items()}
    outcomes = tried(watched, fault, "weights", files, seal=False)
    assert [what for what, one in zip(files, outcomes, strict=True) if one.kind != "refused"] == []


NAMES: dict[str, list[Any]] = {
    "method": ["../x", "os", "a.b", "__init__", "standard_head/../x", "\0"],
    "model": [
        *("hf-hub:someone/model", "hf_hub:someone/model", "local-dir:/tmp", "hf-hub:a/b@main"),
        *("vit_giant_patch14_dinov2", "resnet18?num_classes=10", "resnet18.nothing", "test_vit"),
        *("timm/resnet18", "\x1b[2J"),
    ],
    "class_names": [
        *(["a", "a", "b"], ["a", "b", ""], ["__proto__"] * 3, ["\x1b[2J", "a", "b"]),
        *(["\u202ea", "b", "c"], [f"c{place}" for place in range(10**6)], ["x" * 10**6, "a", "b"]),
    ],
}


def odd_facts(watched: Watched, kind: str, soak: bool) -> dict[str, str]:
    """Metadata of a valid file of this kind, as JSON."""
    header = header_of(sound(watched, kind))
    if kind == "weights":
        return {}
    facts = json.loads(header["__metadata__"]["facts"])
    texts = [json.dumps(changed) for changed in leaves(facts)][:: 1 if soak else 199]
    plain = [text.decode() for text in texts_of_json(facts) if text.isascii()]
    texts += plain[:: 1 if soak else 25]
    texts += ["[" + "[]," * 5_000_000 + "[]]"] * soak
    for key, values in NAMES.items():
        if key == "model" and key in facts:
            texts += [json.dumps(facts | {key: facts[key] | {key: value}}) for value in values]
        elif key in facts:
            texts += [json.dumps(facts | {key: value}) for value in values]
    return {f"{number} {text[:300]}": text for number, text in enumerate(texts)}


@pytest.mark.parametrize("kind", KINDS)
def test_facts_that_are_odd(watched: Watched, fault: Fault, soak: bool, kind: str) -> None:
    files = {
        what: with_facts(sound(watched, kind), text)
        for what, text in odd_facts(watched, kind, soak).items()
    }
    tried(watched, fault, kind, files, seal=True)


# a traceback, a hang or more than 2 GB before they were refused
FOUND: list[tuple[str, dict[str, Any]]] = [
    ("state", {"progress": []}),
    ("state", {"progress": "\ud800"}),
    ("state", {"progress": float("nan")}),
    ("csra_db_cas", {"model": {"csra_lambda": 10**400}}),
    ("label_coupling", {"model": {"coupling_alpha": 10**400}}),
    ("block", {"unreadable": None}),
    ("block", {"unreadable": [0]}),
    ("block", {"unreadable": [["nan", "x"]]}),
]


def test_facts_that_were_found(watched: Watched, fault: Fault) -> None:
    for kind, changes in FOUND:
        facts = json.loads(header_of(sound(watched, kind))["__metadata__"]["facts"])
        if "model" in changes:
            changes = {"model": facts["model"] | changes["model"]}
        data = with_facts(sound(watched, kind), json.dumps(facts | changes))
        tried(watched, fault, kind, {str(changes): data}, seal=True)


def test_a_missing_or_special_file(watched: Watched, fault: Fault) -> None:
    pipe, folder, zero = (
        watched.out / f"{name}.safetensors" for name in ("pipe", "folder", "zero")
    )
    os.mkfifo(pipe)
    folder.mkdir()
    zero.symlink_to("/dev/zero")
    inputs = [
        [name, str(path)]
        for name in KINDS[:-1]
        for path in (pipe, folder, zero)
        if (name, path) != ("weights", pipe)
    ]
    fault(FAULT, len(inputs))
    outcomes = watched.call("checkpoint_targets:at", inputs)
    assert [one.text for one in outcomes if one.kind != "refused"] == []
