"""From settings to one table: a CSV as it is, or several of different sources joined.

Joined, a label is the column of every source that means it (`label_map`) and unknown where a
source has no such column; images, patients and studies carry their source's name before their own.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from core.config.data import DataConfig
from core.data.csv.label_values import label_key
from core.data.csv.labels import is_always_positive
from core.data.sources import PLAIN, read_sheet
from core.data.sources.sheet import Sheet
from core.data.tables.label_map import LabelMap, read_label_map
from core.data.tables.label_table import LabelTable, read_table
from core.data.tables.merge import (
    Part,
    join_tables,
    of_same_people,
    rename_labels,
    shared_patients,
    with_source,
    without_shared_images,
)
from core.errors import UserError, nearest, plain, some


def gather(
    data: DataConfig,
    *,
    validation: bool = False,
    images: bool = True,
    labels: Sequence[str] | None = None,
) -> LabelTable:
    """The table of all --train_csv, or for `validation` of all --val_csv.

    Without `images` only the labels are read. `labels` goes before --labels. One CSV without a
    --label_map gives the table that `read_table` makes of it. A validation table is a split of its
    own: images of the official test stay in it. Raises UserError as `read_table` and
    `read_label_map` do, for a label that no source has, a source that has none of the labels that
    are asked for, and an image file of two sources.
    """
    parts = _parts(data, validation=validation, images=images)
    wanted = data.label_names if labels is None else list(labels)
    if validation:
        data = replace(data, official_split="all")
    sheets = [_sheet(data, part) for part in parts]
    if len(parts) == 1 and data.label_map is None:
        return _read(data, parts[0], sheets[0], wanted)
    label_map = read_label_map(data.label_map)
    homes = of_same_people(sheets)
    if wanted is None:
        chosen = _listed(sheets, homes, [None] * len(parts))
        tables = [_read(data, *one) for one in zip(parts, sheets, chosen, strict=True)]
        for place, lost in enumerate(_constant_here(sheets, tables, label_map)):
            if lost:
                labels = [*tables[place].class_names, *lost]
                tables[place] = _read(data, parts[place], sheets[place], labels)
        there: list[Sequence[str]] = [table.class_names for table in tables]
    else:
        there = [[name for name in sheet.columns if plain(name)] for sheet in sheets]
        if validation and len(parts) == 1 and sheets[0].lists:
            # what was trained on and no list of this CSV names is 0
            means = {plain(label_map.way(name)[-1]) for name in there[0]}
            there[0] = [*there[0], *(name for name in wanted if plain(name) not in means)]
        columns = _choose(parts, there, wanted, label_map, "val" if validation else "train")
        chosen = _listed(sheets, homes, columns)
        tables = [_read(data, *one) for one in zip(parts, sheets, chosen, strict=True)]
    tables = without_shared_images(tables, sheets, parts, homes, data.official_split)
    notes = shared_patients(tables, sheets, parts)
    notes += [
        f"Warning: --label_map {data.label_map} renames '{label}', which is in no CSV."
        for label in label_map.idle([name for names in there for name in names])
    ]
    spelling = {plain(name): name for name in wanted or ()}
    for place, (table, part) in enumerate(zip(tables, parts, strict=True)):
        names = _meanings(table.class_names, spelling, label_map, part.csv)
        tables[place] = rename_labels(table, names, part.csv)
        if len(parts) > 1:
            people = parts[homes[place]].name
            tables[place] = with_source(tables[place], sheets[place], part.name, people)
    class_names = wanted or list(dict.fromkeys(n for table in tables for n in table.class_names))
    joined = join_tables(tables, parts, class_names)
    return replace(joined, notes=(*joined.notes, *notes))


def _parts(data: DataConfig, *, validation: bool, images: bool) -> list[Part]:
    """The CSVs to read. A source has the same name in training and in validation."""
    count = len(data.train_csv)
    folders = data.train_dir * count if len(data.train_dir) == 1 else data.train_dir
    kinds = data.source or (None,) * count
    return [
        Part(csv, folder if images else None, kind, name)
        for csv, folder, kind, name in zip(
            data.val_csv if validation else data.train_csv,
            folders,
            kinds,
            source_names(data.train_csv, kinds),
            strict=True,
        )
    ]


def source_names(csvs: Sequence[Path], kinds: Sequence[str | None]) -> list[str]:
    """A name for each CSV, all different, that follows from the settings alone.

    Its --source, or else that of the file without its ending; where two are the same, with the
    folder's or at last a number before it.
    """
    stems = [path.name.removesuffix(".gz").removesuffix(".csv") for path in csvs]
    own = [stem if kind in (None, PLAIN) else kind for stem, kind in zip(stems, kinds, strict=True)]
    names = [str(name) for name in own]
    if len(set(names)) < len(names):
        folders = [path.absolute().parent.name for path in csvs]
        names = [
            f"{folder}-{name}" if names.count(name) > 1 else name
            for name, folder in zip(names, folders, strict=True)
        ]
    if len(set(names)) < len(names):
        names = [f"{number}-{name}" for number, name in enumerate(names, start=1)]
    return names


def _read(data: DataConfig, part: Part, sheet: Sheet, labels: Sequence[str] | None) -> LabelTable:
    alone = len(data.train_csv) == 1
    blank, notes = meaning_of_blank(part.csv, sheet, data.blank, alone=alone)
    table = read_table(
        part.csv,
        part.folder,
        labels,
        image_column=data.image_column or None,
        patient_column=data.patient_column or None,
        study_column=data.study_column or None,
        view_column=data.view_column or None,
        uncertain=data.uncertain,
        blank=blank,
        source=part.source,
        views=data.views,
        readers=data.readers,
        official_split=data.official_split,
        sheet=sheet,
    )
    return replace(table, notes=(*table.notes, *notes))


def meaning_of_blank(
    csv: Path, sheet: Sheet, given: str | None, *, alone: bool
) -> tuple[str | None, list[str]]:
    """What `read_table` is to take a blank label of `csv` for where --blank is `given`; and a note.

    A source's own meaning goes before --blank, unless the CSV is the only one (`alone`).
    """
    if given in (None, sheet.blank) or sheet.blank is None:
        return given, []
    if alone:
        return given, [
            f"Warning: a blank label of {csv} means {given}, as --blank says, and not "
            f"{sheet.blank} as is usual there."
        ]
    return None, [f"--blank {given} is not for {csv}, whose table has a meaning of its own."]


def _sheet(data: DataConfig, part: Part) -> Sheet:
    image_column = data.image_column or None
    return read_sheet(part.csv, part.source, image_column=image_column, readers=data.readers)


def _listed(
    sheets: Sequence[Sheet], homes: Sequence[int], chosen: Sequence[list[str] | None]
) -> list[list[str] | None]:
    """The labels to read of each CSV, with those that lists of the same source name elsewhere.

    A label that no list of a CSV names is 0 in all its images. None: those that are found.
    """
    labels = list(chosen)
    for home in set(homes):
        lists = [p for p, sheet in enumerate(sheets) if homes[p] == home and sheet.lists]
        if len(lists) > 1:
            own = {p: chosen[p] or [*(sheets[p].labels or ())] for p in lists}
            every = (name for names in own.values() for name in names)
            named = list({label_key(name): name for name in every}.values())
            labels = [named if p in lists else names for p, names in enumerate(labels)]
    return labels


def _constant_here(
    sheets: Sequence[Sheet], tables: Sequence[LabelTable], label_map: LabelMap
) -> list[list[str]]:
    """For each CSV the columns that are 1 for every image, and a label in another CSV."""
    known = {plain(label_map.way(name)[-1]) for table in tables for name in table.class_names}
    return [
        [
            name
            for name, column in sheet.columns.items()
            if sheet.labels is None and is_always_positive(column)
            if name not in table.class_names and plain(label_map.way(name)[-1]) in known
        ]
        for sheet, table in zip(sheets, tables, strict=True)
    ]


def _choose(
    parts: Sequence[Part],
    columns: Sequence[Sequence[str]],
    wanted: Sequence[str],
    label_map: LabelMap,
    what: str,
) -> list[list[str]]:
    """Those of the columns of each CSV that mean one of the `wanted` labels."""
    keys = [plain(name) for name in wanted]
    twice = [name for name, key in zip(wanted, keys, strict=True) if keys.count(key) > 1]
    if twice:
        raise UserError(f"--labels names one label as {' and as '.join(twice)}: name it once")
    ends = [{name: label_map.way(name)[-1] for name in names} for names in columns]
    meanings: dict[str, str] = {}
    for end in (end for one in ends for end in one.values()):
        meanings.setdefault(plain(end), label_map.spelling(end) or end)
    for name, key in zip(wanted, keys, strict=True):
        if key not in meanings:
            called = meanings.get(plain(label_map.way(name)[-1]))
            hint = nearest(name, meanings.values())
            if called is not None:
                hint = f": by the label map it is called '{called}'"
            raise UserError(f"no --{what}_csv has the label '{name}'{hint}")
    chosen = [[name for name, end in one.items() if plain(end) in keys] for one in ends]
    for part, names in zip(parts, chosen, strict=True):
        if not names:
            raise UserError(
                f"{part.csv} has none of the labels {some(wanted, 12)}: leave this CSV out, or add "
                "one of its labels to --labels"
            )
    return chosen


def _meanings(
    labels: Sequence[str], spelling: dict[str, str], label_map: LabelMap, csv: Path
) -> dict[str, str]:
    """From each label to what it is called in the joint table, whose names `spelling` collects.

    As --labels writes it, else the label map, else the first CSV that has it. Raises UserError for
    two labels of `csv` that are alike but for case and punctuation, and in no row of the map.
    """
    names: dict[str, str] = {}
    alike: dict[str, str] = {}
    for label in labels:
        other = alike.setdefault(plain(label), label)
        if other != label and plain(label) not in label_map.steps:
            raise UserError(
                f"columns '{other}' and '{label}' of {csv} differ in case or punctuation only, by "
                "which labels are not told apart: rename one of them, or join them by a row "
                f"'{label},{label}' of a --label_map"
            )
        end = label_map.way(label)[-1]
        names[label] = spelling.setdefault(plain(end), label_map.spelling(end) or end)
    return names
