"""From settings to one table: a CSV as it is, or several of different sources joined.

Joined, a label is the column of every source that means it (`label_map`) and unknown where a
source has no such column; images, patients and studies carry their source's name before their own.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from core.config.data import DataConfig, LabelReading
from core.data.csv.label_values import label_key
from core.data.csv.labels import is_always_positive
from core.data.sources import PLAIN, read_source_table
from core.data.tables import merge
from core.data.tables.label_map import LabelMap, read_label_map
from core.data.tables.label_table import LabelTable
from core.data.tables.merge import Part
from core.errors import UserError, list_first, normalize_name, suggest_name


def read_table(
    csv: str | Path,
    image_dir: str | Path | None,
    labels: Sequence[str] | None = None,
    reading: LabelReading | None = None,
    **fields: Any,
) -> LabelTable:
    """Read a CSV or a known dataset's own table, and find the images (none: `image_dir` is None).

    `labels` names the label columns in order, else they are found by their cells. `fields` are over
    those of `reading`. Columns that it does not name are found by their usual names, or patient,
    study and view in the headers, where all images are DICOM. Raises UserError for anything that is
    missing, ambiguous or not a label, naming the place.
    """
    reading = (reading or LabelReading()).change(**fields)
    folder = None if image_dir is None else Path(image_dir)
    return _read_parts([Part(read_source_table(Path(csv), reading), folder, "", reading)], labels)


def gather(
    data: DataConfig,
    *,
    validation: bool = False,
    images: bool = True,
    labels: Sequence[str] | None = None,
) -> LabelTable:
    """The table of all --train_csv, or for `validation` of all --val_csv with any official test.

    Without `images` only the labels are read. `labels` goes before --labels. Raises UserError as
    `read_table` and `read_label_map` do, for a label that no source has, a source that has none of
    the labels that are asked for, and an image file of two sources.
    """
    count = len(data.train_csv)
    folders = data.train_dir * count if len(data.train_dir) == 1 else data.train_dir
    # a source has the same name in training and in validation
    names = source_names(data.train_csv, data.reading.source or (None,) * count)
    csvs = data.val_csv if validation else data.train_csv
    parts, notes = [], []
    is_for_all = not isinstance(data.reading.blank, tuple | list) or len(data.reading.blank) == 1
    for place, (csv, folder, name) in enumerate(zip(csvs, folders, names, strict=True)):
        reading = data.reading.of_csv(place)
        if validation:
            reading.official_split = "all"
        sheet = read_source_table(csv, reading)
        is_shared = count > 1 and is_for_all
        if is_shared and reading.blank and sheet.blank not in (None, reading.blank):
            notes.append(
                f"--blank {reading.blank} is not for {csv}, whose table has a meaning of its own."
            )
            reading.blank = None
        parts.append(Part(sheet, folder if images else None, name, reading))
    wanted = data.label_names if labels is None else list(labels)
    table = _read_parts(parts, wanted, validation=validation)
    return replace(table, notes=(*table.notes, *notes))


def _read_parts(
    parts: Sequence[Part], wanted: Sequence[str] | None, *, validation: bool = False
) -> LabelTable:
    """The table of all `parts`, with the labels `wanted` or those that are found."""
    path = parts[0].reading.label_map
    if len(parts) == 1 and path is None:
        return parts[0].read(wanted)
    label_map = read_label_map(path)
    homes = merge.find_same_people(parts)
    if wanted is None:
        tables = list(map(Part.read, parts, _listed(parts, homes, [None] * len(parts))))
        for place, lost in enumerate(_constant_here(parts, tables, label_map)):
            if lost:
                tables[place] = parts[place].read([*tables[place].class_names, *lost])
        there: list[Sequence[str]] = [table.class_names for table in tables]
    else:
        there = [[name for name in part.sheet.columns if normalize_name(name)] for part in parts]
        if validation and len(parts) == 1 and parts[0].sheet.lists:
            # what was trained on and no list of this CSV names is 0
            means = {normalize_name(label_map.meaning(name)) for name in there[0]}
            there[0] = [*there[0], *(name for name in wanted if normalize_name(name) not in means)]
        chosen = _choose(parts, there, wanted, label_map, "val" if validation else "train")
        tables = list(map(Part.read, parts, _listed(parts, homes, chosen)))
    tables = merge.without_shared_images(tables, parts, homes)
    notes = merge.shared_patients(tables, parts)
    notes += [
        f"Warning: --label_map {path} renames '{label}', which is in no CSV."
        for label in label_map.unused([name for names in there for name in names])
    ]
    spelling = {normalize_name(name): name for name in wanted or ()}
    for place, (table, part) in enumerate(zip(tables, parts, strict=True)):
        names = _meanings(table.class_names, spelling, label_map, part.csv)
        tables[place] = merge.rename_labels(table, names, part.csv)
        if len(parts) > 1:
            tables[place] = merge.with_source(tables[place], part, parts[homes[place]].name)
    notes += merge.labels_of_some(tables, parts)
    class_names = wanted or list(dict.fromkeys(n for table in tables for n in table.class_names))
    joined = merge.join_tables(tables, parts, class_names)
    return replace(joined, notes=(*joined.notes, *notes))


def source_names(csvs: Sequence[Path], kinds: Sequence[str | None]) -> list[str]:
    """A name for each CSV, all different, that follows from the settings alone.

    Its --source, or else that of the file without its ending; where two are the same, with the
    folder's or at last a number before it.
    """
    names = [
        path.name.removesuffix(".gz").removesuffix(".csv") if kind in (None, PLAIN) else str(kind)
        for path, kind in zip(csvs, kinds, strict=True)
    ]
    names = [
        f"{path.absolute().parent.name}-{name}" if names.count(name) > 1 else name
        for path, name in zip(csvs, names, strict=True)
    ]
    if len(set(names)) < len(names):
        names = [f"{number}-{name}" for number, name in enumerate(names, start=1)]
    return names


def _listed(
    parts: Sequence[Part], homes: Sequence[int], chosen: Sequence[list[str] | None]
) -> list[list[str] | None]:
    """The labels to read of each CSV (None: as found), with those that lists of the same source
    name elsewhere: one that no list of a CSV names is 0 in all its images."""
    labels = list(chosen)
    for home in set(homes):
        lists = [p for p, part in enumerate(parts) if homes[p] == home and part.sheet.lists]
        if len(lists) > 1:
            every = [name for p in lists for name in chosen[p] or parts[p].sheet.labels or ()]
            named = list({label_key(name): name for name in every}.values())
            labels = [named if p in lists else names for p, names in enumerate(labels)]
    return labels


def _constant_here(
    parts: Sequence[Part], tables: Sequence[LabelTable], label_map: LabelMap
) -> list[list[str]]:
    """For each CSV the columns that are 1 for every image, and a label in another CSV."""
    known = {
        normalize_name(label_map.meaning(name)) for table in tables for name in table.class_names
    }
    return [
        [
            name
            for name, column in part.sheet.columns.items()
            if part.sheet.labels is None and is_always_positive(column)
            if name not in table.class_names and normalize_name(label_map.meaning(name)) in known
        ]
        for part, table in zip(parts, tables, strict=True)
    ]


def _choose(
    parts: Sequence[Part],
    columns: Sequence[Sequence[str]],
    wanted: Sequence[str],
    label_map: LabelMap,
    what: str,
) -> list[list[str] | None]:
    """Those of the columns of each CSV that mean one of the `wanted` labels."""
    keys = [normalize_name(name) for name in wanted]
    twice = [name for name, key in zip(wanted, keys, strict=True) if keys.count(key) > 1]
    if twice:
        raise UserError(f"--labels names one label as {' and as '.join(twice)}: name it once")
    meanings = [{name: label_map.meaning(name) for name in names} for names in columns]
    known: dict[str, str] = {}
    for meaning in (meaning for one in meanings for meaning in one.values()):
        known.setdefault(normalize_name(meaning), meaning)
    for name in (name for name in wanted if normalize_name(name) not in known):
        called = known.get(normalize_name(label_map.meaning(name)))
        by_map = f": by the label map it is called '{called}'"
        hint = by_map if called else suggest_name(name, known.values())
        raise UserError(f"no --{what}_csv has the label '{name}'{hint}")
    chosen = [
        [name for name, means in one.items() if normalize_name(means) in keys] for one in meanings
    ]
    for part, names in zip(parts, chosen, strict=True):
        if not names:
            raise UserError(
                f"{part.csv} has none of the labels {list_first(wanted, 12)}: leave this CSV out"
            )
    return [*chosen]


def _meanings(
    labels: Sequence[str], spelling: dict[str, str], label_map: LabelMap, csv: Path
) -> dict[str, str]:
    """From each label to its name in the joint table, whose names `spelling` collects: as --labels
    writes it, else the label map, else the first CSV that has it."""
    names: dict[str, str] = {}
    alike: dict[str, str] = {}
    for label in labels:
        other = alike.setdefault(normalize_name(label), label)
        if other != label and normalize_name(label) not in label_map.steps:
            raise UserError(
                f"columns '{other}' and '{label}' of {csv} differ in case or punctuation only: "
                f"rename one of them, or join them by a row '{label},{label}' of a --label_map"
            )
        meaning = label_map.meaning(label)
        names[label] = spelling.setdefault(normalize_name(meaning), meaning)
    return names
