"""Invalid values of flags and of a settings file, and their error messages."""

import json
from pathlib import Path

import pytest

from tests.conftest import Call
from tests.helpers.training.small_run import settings

NO_NAME = "has a control character, or is too long"
REFUSED = """
    --labels A,B,A | --labels names a label twice
    --patient_column a b | --patient_column has 2 values and --train_csv 1
    --blank zero unknown zero | --blank has 3 values and --train_csv 1
    --uncertain two | there is no --uncertain 'two'; it has ignore, zero, one
    --folds 1 | --folds must be at least 2
    --run_folds 6 | --run_folds counts from 1 to --folds 5
    --run_folds 2 2 | --run_folds names a fold twice
    --seed -1 | --seed must be at least 0
    --img_size 16 | --img_size must be at least 32
    --source_weights 1 -0.5 | each of --source_weights must be at least 0
    --batch_size 1 | --batch_size must be at least 2
    --num_workers -1 | --num_workers must be at least 0
    --seed 4294967296 | --seed must be at most 4294967295
    --drop_path_rate 1.5 | --drop_path_rate must be at most 1, not 1.5
    --loss asl --pos_weight | --pos_weight belongs to --loss bce
    --label_smooth 1 | --label_smooth must be below 1
    --drw_epoch 34 | --drw_epoch must lie within 1 and the 33 epochs of the training
    --loss_options gamma=x | --loss_options takes NAME=NUMBER, not gamma=x
    --loss_options gama=2 | --loss_options: there is no constant 'gama': did you mean 'gamma'?
    --loss_options gamma=2 gamma=3 | --loss_options names gamma twice
    --epochs -1 | --epochs must be at least 0
    --epochs 0 --warmup_epochs 0 --warmup_head_epochs 0 | --epochs 0 trains the head phase alone
    --layer_decay 0 | --layer_decay must be above 0
    --layer_decay 1.5 | --layer_decay must be at most 1
    --layer_decay 0.5 --freeze_backbone | --layer_decay is for a backbone that is trained
    --layer_decay 0.5 --epochs 0 | --layer_decay is for a backbone that is trained
    --warmup_head_epochs -1 | --warmup_head_epochs must be at least 0
    --warmup_epochs 31 | --warmup_epochs must lie within 0 and 30
    --accumulate 0 | --accumulate must be at least 1
    --warmup_head_lr 0 | --warmup_head_lr must be above 0
    --head_views 0 | --head_views must be at least 1
    --weights_file a --init_from b | --weights_file and --init_from contradict each other
    --backbone_lr -1e-5 | --backbone_lr must be above 0
    --head_lr inf | --head_lr must be a finite number
    --clip_norm nan | --clip_norm must be above 0
    --weight_decay -0.1 | --weight_decay must be at least 0
    --ema_decay 1.1 | --ema_decay must be at most 1
    --patience 0 | --patience must be at least 1
    --log_every 0 | --log_every must be at least 1
    --save_minutes 0 | --save_minutes must be above 0
    --epoch 3 | --epochs
    --ema True | Unrecognized options: True
    --preset | --preset
    --config | --config
    --devices 2 | Unrecognized options: --devices
    --num_workers x | --num_workers
    --preset smal | no --preset 'smal': did you mean 'small'
    --sampler class-awar | did you mean 'class_aware'
    --sampler_mix 1.5 --sampler repeat_factor | --sampler_mix must be at most 1
    --sampler uniform --sampler_mix .5 | --sampler_mix has no effect on --sampler uniform
    --sampler uniform --sampler_cap 2 | --sampler_cap has no effect on --sampler uniform
    --sampler_cap .5 --sampler repeat_factor | --sampler_cap must be at least 1
    --retrain_epochs 2 --sampler class_aware | --retrain_epochs needs another sampler than --sampler
    --retrain_epochs -1 | --retrain_epochs must be at least 0
    --retrain_lr 0 | --retrain_lr must be above 0
    --monitor auc | no --monitor 'auc': did you mean 'mAUROC'?
"""
# of flags that not every method has, and of those that depend on the method's phases
OWN = {
    "standard_head": """
    --drop_rate 1 | --drop_rate must be below 1
    --head liner | no --head 'liner': did you mean 'linear'?
    """,
    "csra_db_cas": """
    --csra_lambda -0.1 | --csra_lambda must be at least 0
    --csra-heads 99 | no --csra_heads '99'; it has 1, 2, 4, 6, 8
    --drw_epoch 71 | --drw_epoch must lie within 1 and the 70 epochs of the training
    --drop_rate 0.1 | Unrecognized options: --drop_rate
    """,
    "label_coupling": """
    --drop_rate 1 | --drop_rate must be below 1
    --coupling_alpha 0 | --coupling_alpha must be above 0
    --coupling_l1 -1e-4 | --coupling_l1 must be at least 0
    --couplings_only a --init_from b | --couplings_only and --init_from contradict each other
    --couplings_only a --freeze_backbone | leave out --freeze_backbone
    --couplings_only a --layer_decay 0.5 | leave out --layer_decay
    --couplings_only a --retrain_epochs 2 | leave out --retrain_epochs
    --couplings_only a --weights_name rad-dino | leave out --weights_name
    --couplings_only a --weights_file b | leave out --weights_file
    --epochs 0 --freeze_backbone | --epochs 0 trains the head phase alone, which this run does not
    --lr 0 | --lr must be above 0
    --rotation 181 | --rotation must be at most 180
    --drw_epoch 4 | --drw_epoch must lie within 1 and the 3 epochs of the training
    --couplings_only a.safetensors --no-refiner | the couplings of the refiner: add --refiner
    --head_lr 0.1 | Unrecognized options: --head_lr
    """,
}
# in a settings file
FILE: list[tuple[object, str]] = [
    ('{"epochs": 3', "is not valid JSON"),
    ([1, 2], "is not a JSON object"),
    ({"batchsize": 3}, "there is no setting 'batchsize': did you mean 'batch_size'?"),
    ({"epochs": "many"}, '--epochs must be a whole number, not "many"'),
    ({"epochs": True}, "--epochs must be a whole number, not true"),
    ({"epochs": -1}, "--epochs must be at least 0, not -1"),
    ('{"clip_norm": 1e999}', "--clip_norm must be a finite number"),
    ({"run_folds": 1}, "--run_folds must be a list, not 1"),
    ({"run_folds": [1, [2]]}, "each of --run_folds must be a whole number, not [1, [2]]"),
    ({"labels": ["A", "B"]}, '--labels must be a text, not ["A", "B"]'),
    ({"ema": "false"}, '--ema must be true or false, not "false"'),
    ({"patience": "x"}, '--patience must be a whole number or null, not "x"'),
    ({"num_workers": "aut"}, "there is no --num_workers 'aut': did you mean 'auto'?"),
    ({"preset": "medium"}, "there is no --preset 'medium'; it has auto, paper, small"),
    ({"overwrite": True}, "overwrite belongs on the command line"),
    ({"model": "a" * 100_001}, f"--model {NO_NAME}"),
    ({"out_dir": "\ud800"}, f"--out_dir {NO_NAME}"),
]


def lines(text: str) -> list[str]:
    return [line.strip() for line in text.strip().splitlines()]


CASES = [("standard_head", line) for line in lines(REFUSED)]
CASES += [(method, line) for method, text in OWN.items() for line in lines(text)]


@pytest.mark.parametrize(("method", "line"), CASES)
def test_refused_flags(call: Call, method: str, line: str) -> None:
    arguments, _, sentence = line.partition(" | ")
    code, _, error = call(lambda: settings(*arguments.split(), method=method))
    assert code == 2
    assert sentence in " ".join(error.replace("│", " ").split())
    assert "Traceback" not in error


@pytest.mark.parametrize(("content", "sentence"), FILE)
def test_refused_files(call: Call, tmp_path: Path, content: object, sentence: str) -> None:
    path = tmp_path / "settings.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    code, _, error = call(lambda: settings("--config", str(path)))
    assert code == 2
    assert error.startswith(f"error: --config {path}")
    assert error.count("\n") == 1
    assert sentence in error


@pytest.mark.parametrize(
    ("name", "sentence"),
    [("no.json", "No such file"), ("", "Is a directory"), ("a", "is not valid JSON")],
)
def test_files_that_cannot_be_read(call: Call, tmp_path: Path, name: str, sentence: str) -> None:
    (tmp_path / "a").write_bytes(b'{"labels": "\xe4"}')
    code, _, error = call(lambda: settings("--config", str(tmp_path / name)))
    assert code == 2
    assert sentence in error
