"""A run of standard_head that takes seconds: two folds, one head-only epoch and two more."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MODEL = "test_efficientnet"


def flags(data: Path, out: Path, *more: object) -> list[str]:
    """Flags of a run of a tiny network on the images of `data`."""
    return [
        *("--preset", "small", "--train_csv", str(data / "train.csv")),
        *("--train_dir", str(data / "images"), "--out_dir", str(out)),
        *("--model", MODEL, "--no-pretrained", "--img_size", "32", "--batch_size", "8"),
        *("--folds", "2", "--epochs", "2", "--num_workers", "0", "--log_every", "1"),
        *map(str, more),
    ]


def contents(folder: Path) -> dict[str, bytes]:
    """The files of a run that the same run always gives again, byte for byte."""
    names = ["metrics.csv", "folds.csv", "config.json"]
    names += [f"{MODEL}_fold{fold}{end}" for fold in (1, 2) for end in (".safetensors", "_val.csv")]
    return {name: (folder / name).read_bytes() for name in names if (folder / name).exists()}
