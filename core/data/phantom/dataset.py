"""Synthetic chest X-ray dataset with known labels, couplings and lesions.

The prevalence is long-tailed. A patient has several similar films, so a split that leaks patients
gets better scores. Some findings are faint but tend to occur with a more visible one.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from core.data.phantom.anatomy import Stream, draw_patient
from core.data.phantom.lesions import FINDINGS, PREVALENCE, draw_radiograph
from core.errors import UserError
from core.io.atomic import cannot_write
from core.runtime.progress_bar import ProgressBar

NORMAL = "Normal"
# Source, target, and probability of the target if the source is present. A target has a single
# source, which precedes it in FINDINGS, so that each marginal stays exact.
COUPLINGS = (
    ("Effusion", "Atelectasis", 0.50),
    ("Cardiomegaly", "Edema", 0.45),
    ("Emphysema", "Fibrosis", 0.35),
    ("Pneumothorax", "Subcutaneous_Emphysema", 0.20),
)
SOURCES = {target: (source, strength) for source, target, strength in COUPLINGS}
# visibility of a coupled target relative to other findings: low, so that its source helps
FAINT = 0.4
# probability that a film shows the patient's state of a finding, not an independent draw
PERSISTENCE = 0.8
FILMS_OF_A_PATIENT = (2, 6)  # fewest, most
LEAST = {"images": 20, "size": 32, "seed": 0}
LEAST_TEST_IMAGES = 50
RECORD = "phantom.json"
UNFINISHED = "phantom.partial"
CONTENT = ("train.csv", "test.csv", "test_labels.csv", "couplings.csv", "boxes.csv", "images")
# --rare multiplies the prevalence of findings below this one
COMMON = 0.05
# increased whenever the same settings give other pixels or labels
VERSION = 1


def prevalences(rare: float = 1.0) -> dict[str, float]:
    """Prevalence of each finding; those below `COMMON` are multiplied by `rare`."""
    return {name: p * rare if p < COMMON else p for name, p in PREVALENCE.items()}


def draw_states(
    random: np.random.Generator, count: int, prevalence: Mapping[str, float]
) -> NDArray[np.int8]:
    """Draw label vectors (count, C) with this prevalence and the couplings of FINDINGS."""
    states = np.zeros((count, len(FINDINGS)), np.int8)
    ranks = random.permuted(np.tile(np.arange(count), (len(FINDINGS), 1)), axis=1).T
    # one sample in each of `count` equal strata, so that rare findings keep their prevalence
    chances = (ranks + random.random(states.shape)) / count
    for column, finding in enumerate(FINDINGS):
        probability: Any = prevalence[finding]
        if finding in SOURCES:
            source, strength = SOURCES[finding]
            share = prevalence[source]
            otherwise = (probability - strength * share) / (1.0 - share)
            probability = np.where(states[:, FINDINGS.index(source)] == 1, strength, otherwise)
        states[:, column] = chances[:, column] < probability
    return states


def draw_labels(
    images: int, seed: int = 0, first_patient: int = 0, rare: float = 1.0
) -> pd.DataFrame:
    """Draw ImageID, PatientID, a 0/1 column per finding, and Normal (1 without findings).

    Prevalences are those of `prevalences(rare)`. Patients have several films and are numbered from
    `first_patient`. On each film a finding has the patient's state with probability `PERSISTENCE`,
    otherwise it is drawn independently; coupled pairs do so together, so that every film keeps the
    probabilities.
    """
    random = np.random.default_rng((seed, first_patient, Stream.LABELS))
    ends = np.cumsum(random.integers(*FILMS_OF_A_PATIENT, endpoint=True, size=images))
    # the last patient has fewer films, but at least two
    ends = np.append(ends[ends < images - 1], images)
    number = np.repeat(np.arange(len(ends)), np.diff(ends, prepend=0))
    films = np.arange(images) - np.insert(ends, 0, 0)[number]
    group = [FINDINGS.index(SOURCES.get(finding, (finding,))[0]) for finding in FINDINGS]
    keeps = random.random((images, len(FINDINGS)))[:, group] < PERSISTENCE
    shares = prevalences(rare)
    own = draw_states(random, len(ends), shares)[number]
    fresh = draw_states(random, images, shares)
    targets = np.where(keeps, own, fresh)
    plant_missing(number, targets, np.random.default_rng((seed, first_patient, Stream.PLANTED)))
    people = [f"p{first_patient + one:05d}" for one in number]
    names = [f"{person}_{film:02d}.png" for person, film in zip(people, films, strict=True)]
    table = pd.DataFrame({"ImageID": names, "PatientID": people})
    table[list(FINDINGS)] = targets
    table[NORMAL] = (targets.sum(axis=1) == 0).astype(np.int8)
    return table


def plant_missing(
    patients: NDArray[np.int64], targets: NDArray[np.int8], random: np.random.Generator
) -> None:
    """Change `targets` (N, C) until each class, and Normal, has enough patients, if possible.

    Enough is one per 200 images, from two to five. One film each of further patients is made
    Normal, and rare findings are added to abnormal films.
    """
    order = random.permutation(len(patients))
    wanted = int(np.clip(len(patients) // 200, 2, 5))

    def first_films(allowed: NDArray[np.bool_], taken: NDArray[np.bool_]) -> NDArray[np.int64]:
        has = np.unique(patients[taken])
        candidates = order[(allowed & ~np.isin(patients, has))[order]]
        _, first = np.unique(patients[candidates], return_index=True)
        return candidates[np.sort(first)][: max(0, wanted - len(has))]

    normal = targets.sum(axis=1) == 0
    targets[first_films(~normal, normal)] = 0
    abnormal = targets.sum(axis=1) > 0
    for column in range(targets.shape[1]):
        targets[first_films(abnormal, targets[:, column] == 1), column] = 1


def draw_images(table: pd.DataFrame, folder: Path, size: int, seed: int) -> pd.DataFrame:
    """Write a grey PNG of size x size pixels per film; returns the boxes of the lesions."""
    visibility = {finding: FAINT if finding in SOURCES else 1.0 for finding in FINDINGS}
    rows: list[tuple[str | int, ...]] = []
    with ProgressBar(
        total=len(table), desc=f"drawing {folder}", unit="image", disable=None
    ) as progress:
        for person, films in table.groupby("PatientID"):
            patient = draw_patient(seed, int(str(person)[1:]), size)
            for film, (_, row) in enumerate(films.iterrows()):
                findings = {name: visibility[name] for name in FINDINGS if row[name] == 1}
                pixels, boxes = draw_radiograph(patient, seed, film, findings)
                # imwrite ignores a disk that fills up at the last bytes
                png = cv2.imencode(".png", pixels)[1].tobytes()
                (folder / row["ImageID"]).write_bytes(png)
                rows += [(row["ImageID"], finding, *box) for finding, box in boxes.items()]
                progress.update()
    return pd.DataFrame(rows, columns=["ImageID", "finding", "x0", "y0", "x1", "y1"])


def is_complete(folder: Path, record: str) -> bool:
    """Whether the folder has the complete phantom of this `record`; False if missing or partial.

    Raises UserError if the folder has other data, or a file is missing.
    """
    advice = "give another folder, or delete this one if its content is no longer needed."
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file, not a folder: give another one.")
    there = [name for name in CONTENT if (folder / name).exists()]
    if (folder / RECORD).exists():
        recorded = (folder / RECORD).read_text(errors="replace")
        if recorded != record:
            raise UserError(f"{folder} holds a phantom of other settings ({recorded}): {advice}")
        if missing := [name for name in CONTENT if name not in there]:
            raise UserError(f"{folder} has lost its {', '.join(missing)}: {advice}")
        return True
    if there and not (folder / UNFINISHED).exists():
        raise UserError(f"{folder} already holds {', '.join(there)}, not made here: {advice}")
    return False


def make_phantom(
    folder: Path, images: int = 1200, size: int = 160, seed: int = 0, rare: float = 1.0
) -> bool:
    """Write the dataset into `folder`; returns False if it is already there.

    `images` is the number of training images; a quarter as many, at least 50, of other patients are
    added for the test. `rare` is that of `prevalences`. The same arguments give the same bytes.
    Raises UserError for invalid settings, a folder with other data, and one that cannot be written.
    """
    settings: dict[str, float] = {"images": images, "size": size, "seed": seed}
    for name, least in LEAST.items():
        if settings[name] < least:
            raise UserError(f"--{name} is {settings[name]}: give at least {least}.")
    if not 0 < rare <= 1:
        raise UserError(f"--rare is {rare:g}: give a number above 0 and up to 1.")
    if rare != 1:
        # only then, so that folders of earlier versions are still recognised
        settings["rare"] = rare
    record = json.dumps({"version": VERSION} | settings)
    if is_complete(folder, record):
        return False
    train = draw_labels(images, seed, rare=rare)
    first_patient = int(train["PatientID"].iloc[-1][1:]) + 1
    test = draw_labels(max(images // 4, LEAST_TEST_IMAGES), seed, first_patient, rare)
    couplings = pd.DataFrame(COUPLINGS, columns=["source", "target", "strength"])
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # first, to distinguish an interrupted phantom from other data
        (folder / UNFINISHED).touch()
        (folder / "images").mkdir(exist_ok=True)
        for leftover in (folder / "images").glob("p[0-9]*_[0-9][0-9].png"):
            leftover.unlink()
        boxes = [draw_images(part, folder / "images", size, seed) for part in (train, test)]
        tables = train, test[["ImageID", "PatientID"]], test, couplings, pd.concat(boxes)
        for name, table in zip(CONTENT, tables, strict=False):
            table.to_csv(folder / name, index=False)
        # last and atomic: marks the dataset as complete
        (folder / UNFINISHED).write_text(record)
        (folder / UNFINISHED).replace(folder / RECORD)
    except OSError as error:
        raise cannot_write(folder, error) from error
    return True


def report(folder: Path, drawn: bool) -> str:
    """Summary line of the folder, and the command that trains on it."""
    tables = [pd.read_csv(folder / name) for name in ("train.csv", "test.csv")]
    patients = sum(table["PatientID"].nunique() for table in tables)
    return (
        f"{'Drew' if drawn else 'Already there:'} {len(tables[0])} + {len(tables[1])} images "
        f"(train + test) of {patients} patients with {len(FINDINGS)} findings in {folder}\n"
        f"python methods/standard_head/train.py "
        f"--train_csv {folder / 'train.csv'} --train_dir {folder / 'images'}"
    )
