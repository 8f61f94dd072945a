"""A procedural chest X-ray dataset with known labels, known couplings and known lesions.

It stands in for data that may not be shared: the prevalence is long-tailed, a patient has several
films that resemble each other (so that a split which leaks patients is rewarded, as in real data),
and some findings are faint but tend to come with a plainer one.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from tqdm import tqdm

from core.data.phantom.anatomy import Stream, draw_patient
from core.data.phantom.lesions import draw_radiograph
from core.errors import UserError
from core.io.atomic import cannot_write

# Fraction of the images that show each finding, commonest first.
PREVALENCE = {
    "Effusion": 0.30,
    "Atelectasis": 0.20,
    "Cardiomegaly": 0.15,
    "Consolidation": 0.12,
    "Edema": 0.10,
    "Nodule": 0.08,
    "Mass": 0.05,
    "Pneumothorax": 0.04,
    "Emphysema": 0.03,
    "Pleural_Thickening": 0.025,
    "Fibrosis": 0.02,
    "Fracture": 0.015,
    "Subcutaneous_Emphysema": 0.01,
    "Hernia": 0.005,
}
FINDINGS = tuple(PREVALENCE)
NORMAL = "Normal"


class Coupling(NamedTuple):
    """The probability `strength` of `target` where `source` is present."""

    source: str
    target: str
    strength: float


# A target has one source, which precedes it in PREVALENCE: so each marginal stays exact.
COUPLINGS = (
    Coupling("Effusion", "Atelectasis", 0.50),
    Coupling("Cardiomegaly", "Edema", 0.45),
    Coupling("Emphysema", "Fibrosis", 0.35),
    Coupling("Pneumothorax", "Subcutaneous_Emphysema", 0.20),
)
# How visible a coupled target is beside the other findings: little, so that its source helps.
FAINT = 0.4
# Probability that one image shows the patient's own state of a finding, not a fresh draw.
PERSISTENCE = 0.8
FILMS_OF_A_PATIENT = (2, 6)  # fewest, most

LEAST_IMAGES = 20
LEAST_TEST_IMAGES = 50
LEAST_SIZE = 32
# Patients that show the rarest class: one for each of five folds, fewer where images are few.
LEAST_POSITIVE_PATIENTS = (2, 5)

RECORD = "phantom.json"
UNFINISHED = "phantom.partial"
TABLES = ("train.csv", "test.csv", "test_labels.csv", "couplings.csv", "boxes.csv")
# Raised whenever the same settings give other pixels or labels.
VERSION = 1


@dataclass(frozen=True)
class Labels:
    """The drawn labels of one part, images ordered by patient."""

    patients: NDArray[np.int64]  # (N,)
    films: NDArray[np.int64]  # (N,) which film of its patient
    targets: NDArray[np.int8]  # (N, C) in the order of FINDINGS

    def table(self) -> pd.DataFrame:
        """ImageID, PatientID, one 0/1 column a finding, and Normal: 1 where there is none."""
        names = zip(self.patients, self.films, strict=True)
        table = pd.DataFrame(
            {"ImageID": [f"p{patient:05d}_{film:02d}.png" for patient, film in names]}
        )
        table["PatientID"] = [f"p{patient:05d}" for patient in self.patients]
        table[list(FINDINGS)] = self.targets
        table[NORMAL] = (self.targets.sum(axis=1) == 0).astype(np.int8)
        return table


def draw_states(random: np.random.Generator, count: int) -> NDArray[np.int8]:
    """Label vectors (count, C) with the prevalence of the table and its couplings."""
    states = np.zeros((count, len(FINDINGS)), np.int8)
    ranks = random.permuted(np.tile(np.arange(count), (len(FINDINGS), 1)), axis=1).T
    # one chance in each of `count` equal strata, so that rare findings keep their prevalence
    chances = (ranks + random.random(states.shape)) / count
    sources = {coupling.target: coupling for coupling in COUPLINGS}
    for column, finding in enumerate(FINDINGS):
        probability: float | NDArray[np.float64] = PREVALENCE[finding]
        if finding in sources:
            source, _, strength = sources[finding]
            rest = 1.0 - PREVALENCE[source]
            otherwise = (PREVALENCE[finding] - strength * PREVALENCE[source]) / rest
            present = states[:, FINDINGS.index(source)] == 1
            probability = np.where(present, strength, otherwise)
        states[:, column] = chances[:, column] < probability
    return states


def draw_labels(images: int, seed: int = 0, first_patient: int = 0) -> Labels:
    """Labels of `images` films, several a patient, patients numbered from `first_patient`.

    A finding persists over a patient's films with probability `PERSISTENCE`, otherwise it is drawn
    anew; a coupled pair does so together, so that every film keeps the table's probabilities.
    Where chance left a finding with positives in fewer than five patients (in a small dataset one
    for each 200 images, at least two), it is added to abnormal films of others, as far as there are
    any; likewise one film each of so many patients is made Normal. In a small dataset the rare
    findings are therefore commoner than in the table.
    """
    random = np.random.default_rng((seed, first_patient, Stream.LABELS))
    ends = np.cumsum(random.integers(*FILMS_OF_A_PATIENT, endpoint=True, size=images))
    # the last patient is cut short, but never to one film
    ends = np.append(ends[ends < images - 1], images)
    number = np.repeat(np.arange(len(ends)), np.diff(ends, prepend=0))
    films = np.arange(images) - np.insert(ends, 0, 0)[number]
    sources = {coupling.target: coupling.source for coupling in COUPLINGS}
    group = [FINDINGS.index(sources.get(finding, finding)) for finding in FINDINGS]
    keeps = random.random((images, len(FINDINGS)))[:, group] < PERSISTENCE
    own, fresh = draw_states(random, len(ends))[number], draw_states(random, images)
    labels = Labels(first_patient + number, films, np.where(keeps, own, fresh))
    plant_missing(labels, np.random.default_rng((seed, first_patient, Stream.PLANTED)))
    return labels


def plant_missing(labels: Labels, random: np.random.Generator) -> None:
    """Changes `labels.targets` until each class has positives in enough patients, if it can."""
    patients, targets = labels.patients, labels.targets
    order = random.permutation(len(patients))
    wanted = int(np.clip(len(patients) // 200, *LEAST_POSITIVE_PATIENTS))

    def first_films(allowed: NDArray[np.bool_], taken: NDArray[np.bool_]) -> NDArray[np.int64]:
        """One allowed film each of as many further patients as are wanting."""
        has = np.unique(patients[taken])
        candidates = order[(allowed & ~np.isin(patients, has))[order]]
        _, first = np.unique(patients[candidates], return_index=True)
        return candidates[np.sort(first)][: max(0, wanted - len(has))]

    normal = targets.sum(axis=1) == 0
    targets[first_films(~normal, normal)] = 0
    abnormal = targets.sum(axis=1) > 0
    for column in range(targets.shape[1]):
        targets[first_films(abnormal, targets[:, column] == 1), column] = 1


def draw_images(labels: Labels, folder: Path, size: int, seed: int) -> pd.DataFrame:
    """Writes one grey PNG of size x size pixels for each film; returns the lesions' boxes."""
    targets = {coupling.target for coupling in COUPLINGS}
    visibility = {finding: FAINT if finding in targets else 1.0 for finding in FINDINGS}
    rows: list[tuple[str | int, ...]] = []
    table = labels.table()
    progress = tqdm(total=len(table), desc=f"drawing {folder}", unit="image", disable=None)
    with progress:
        for number in np.unique(labels.patients):
            patient = draw_patient(seed, int(number), size)
            for row in np.flatnonzero(labels.patients == number):
                present = np.flatnonzero(labels.targets[row])
                findings = {FINDINGS[column]: visibility[FINDINGS[column]] for column in present}
                pixels, boxes = draw_radiograph(patient, seed, int(labels.films[row]), findings)
                name = str(table["ImageID"][row])
                # imwrite is silent where the disk is full at its last bytes
                (folder / name).write_bytes(cv2.imencode(".png", pixels)[1].tobytes())
                rows += [(name, finding, *box) for finding, box in boxes.items()]
                progress.update()
    return pd.DataFrame(rows, columns=["ImageID", "finding", "x0", "y0", "x1", "y1"])


def refuse_or_resume(folder: Path, settings: dict[str, int]) -> bool:
    """True where the very same dataset is complete; False where the folder is free to be filled.

    Raises UserError where it holds other data, or less than all of this. An interrupted phantom
    counts as free.
    """
    advice = "name another folder, or delete this one if its content is no longer needed."
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file, not a folder: name another one.")
    if (folder / RECORD).exists():
        try:
            recorded = json.loads((folder / RECORD).read_text())
        except ValueError:
            recorded = None
        if recorded == settings:
            missing = [name for name in (*TABLES, "images") if not (folder / name).exists()]
            if missing:
                raise UserError(f"{folder} has lost its {', '.join(missing)}: {advice}")
            return True
        raise UserError(f"{folder} holds a phantom of other settings ({recorded}): {advice}")
    if (folder / UNFINISHED).exists():
        return False
    taken = [name for name in (*TABLES, "images") if (folder / name).exists()]
    if taken:
        raise UserError(f"{folder} already holds {', '.join(taken)}, not made here: {advice}")
    return False


def make_phantom(folder: Path, images: int = 1200, size: int = 160, seed: int = 0) -> bool:
    """Writes the dataset into `folder`; False where exactly this one was there already.

    `images` counts those of train.csv; a quarter as many, at least 50, are added for the test,
    from other patients. The same arguments give the same bytes. An image depends on the seed, its
    patient and its labels alone.

    Raises:
        UserError: too few images, too small a size, a negative seed, a folder with other data, or
            one that cannot be written or is on a full disk.
    """
    for name, value, least in (
        ("images", images, LEAST_IMAGES),
        ("size", size, LEAST_SIZE),
        ("seed", seed, 0),
    ):
        if value < least:
            raise UserError(f"--{name} is {value}: give at least {least}.")
    settings = {"version": VERSION, "images": images, "size": size, "seed": seed}
    if refuse_or_resume(folder, settings):
        return False
    try:
        fill_folder(folder, settings)
    except OSError as error:
        raise cannot_write(folder, error) from error
    return True


def fill_folder(folder: Path, settings: dict[str, int]) -> None:
    """Writes the dataset of these settings into a folder that is free."""
    images, size, seed = settings["images"], settings["size"], settings["seed"]
    picture_folder = folder / "images"
    folder.mkdir(parents=True, exist_ok=True)
    # first of all: it tells an interrupted phantom, which may be redone, from foreign data
    (folder / UNFINISHED).touch()
    picture_folder.mkdir(exist_ok=True)
    for leftover in picture_folder.glob("p[0-9]*_[0-9][0-9].png"):
        leftover.unlink()
    train = draw_labels(images, seed)
    test_images = max(images // 4, LEAST_TEST_IMAGES)
    test = draw_labels(test_images, seed, first_patient=int(train.patients[-1]) + 1)
    boxes = [draw_images(part, picture_folder, size, seed) for part in (train, test)]
    train.table().to_csv(folder / "train.csv", index=False)
    test.table()[["ImageID", "PatientID"]].to_csv(folder / "test.csv", index=False)
    test.table().to_csv(folder / "test_labels.csv", index=False)
    pd.DataFrame(COUPLINGS).to_csv(folder / "couplings.csv", index=False)
    pd.concat(boxes).to_csv(folder / "boxes.csv", index=False)
    # written last and in one step: its presence says that all the rest is complete
    (folder / UNFINISHED).write_text(json.dumps(settings))
    (folder / UNFINISHED).replace(folder / RECORD)


def report(folder: Path, drawn: bool) -> str:
    """One line on what the folder holds, and the command that trains on it."""
    tables = [pd.read_csv(folder / name) for name in ("train.csv", "test.csv")]
    patients = sum(table["PatientID"].nunique() for table in tables)
    return (
        f"{'Drew' if drawn else 'Already there:'} {len(tables[0])} + {len(tables[1])} images "
        f"(train + test) of {patients} patients with {len(FINDINGS)} findings in {folder}\n"
        f"python methods/standard_head/train.py "
        f"--train_csv {folder / 'train.csv'} --train_dir {folder / 'images'}"
    )
