"""Two CSVs of a few images with different spellings, for tests of several sources."""

from pathlib import Path
from typing import Any

from core.config.data import DataConfig, LabelReading, SourcesReading

NIH = """
ImageID,PatientID,Effusion,Mass,No_Finding
1.png,7,1,0,0
2.png,7,0,1,0
3.png,9,0,-1,1
"""
HOSPITAL = """
image,subject_id,StudyID,view,mass,Hernia,Pleural effusion,Normal
a/1.png,7,s1,PA,1,0,,0
a/2.png,8,s2,AP,0,1,0,0
"""


def write(folder: Path, name: str, text: str) -> Path:
    """A CSV, and beside it the folder of the images that it names."""
    path = folder / f"{name}.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text.strip() + "\n")
    for line in text.strip().splitlines()[1:]:
        image = folder / name / line.split(",")[0]
        image.parent.mkdir(parents=True, exist_ok=True)
        image.write_bytes(b"")
    return path


def data_config(**settings: Any) -> DataConfig:
    """A training's settings of data, by flag name."""
    names = [name for name in settings if name in LabelReading.__slots__]
    reading = SourcesReading(official_split="train").change(**{n: settings.pop(n) for n in names})
    return DataConfig(reading=reading, **settings)


def two(folder: Path, **more: Any) -> DataConfig:
    csvs = write(folder, "nih", NIH), write(folder, "hospital", HOSPITAL)
    return data_config(train_csv=csvs, train_dir=(folder / "nih", folder / "hospital"), **more)
