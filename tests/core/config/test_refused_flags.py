"""Values that are refused, each with the sentence that it gets."""

import pytest

from core.errors import UserError
from tests.helpers.training.small_run import METHODS, settings

REFUSED = """
    --labels A,B,A | --labels names a label twice
    --folds 1 | --folds must be at least 2
    --run_folds 6 | --run_folds counts from 1 to --folds 5
    --run_folds 0 | --run_folds counts from 1
    --run_folds 2 2 | --run_folds names a fold twice
    --seed -1 | --seed must lie within 0 and
    --img_size 16 | --img_size must be at least 32
    --batch_size 1 | --batch_size must be at least 2
    --num_workers -1 | --num_workers must be at least 0
    --drop_path_rate 1.5 | --drop_path_rate must lie within 0 and 1
    --loss asl --pos_weight | --pos_weight belongs to --loss bce
    --logit_adjust nan | --logit_adjust must be a finite number
    --label_smooth 1 | --label_smooth must lie in [0, 1)
    --label_smooth -0.1 | --label_smooth must lie in [0, 1)
    --drw_epoch 0 | --drw_epoch must lie within 1 and the 33 epochs of the training
    --drw_epoch 34 | --drw_epoch must lie within 1 and the 33 epochs of the training
    --epochs 5 --drw_epoch 9 | within 1 and the 8 epochs of the training
    --loss_options gamma | --loss_options takes NAME=NUMBER, not gamma
    --loss_options gamma=x | --loss_options takes NAME=NUMBER, not gamma=x
    --loss_options gama=2 | --loss_options: there is no constant 'gama': did you mean 'gamma'?
    --loss_options gamma=2 gamma=3 | --loss_options names gamma twice
    --epochs 0 | --epochs must be at least 1
    --warmup_head_epochs -1 | --warmup_head_epochs must be at least 0
    --warmup_epochs 31 | --warmup_epochs must lie within 0 and 30
    --warmup_epochs nan | --warmup_epochs must lie within 0 and 30
    --accumulate 0 | --accumulate must be at least 1
    --warmup_head_lr 0 | --warmup_head_lr must be above 0
    --head_views 0 | --head_views must be at least 1
    --weights_file a --init_from b | --weights_file and --init_from contradict each other
    --backbone_lr -1e-5 | --backbone_lr must be above 0
    --head_lr inf | --head_lr must be above 0 and finite
    --clip_norm nan | --clip_norm must be above 0
    --weight_decay -0.1 | --weight_decay must be at least 0
    --ema_decay 1.1 | --ema_decay must lie within 0 and 1
    --patience 0 | --patience must be at least 1
    --log_every 0 | --log_every must be at least 1
    --save_minutes 0 | --save_minutes must be above 0
    --save_minutes inf | --save_minutes must be above 0 and finite
    --epoch 3 | --epochs
    --ema True | Unrecognized options: True
    --preset | --preset
    --config | --config
    --devices 2 | Unrecognized options: --devices
"""
# of flags that not every method has, and of those that depend on the method's phases
OWN = {
    "standard_head": """
    --drop_rate 1 | --drop_rate must lie in [0, 1)
    --drop_rate nan | --drop_rate must lie in [0, 1)
    """,
    "csra_db_cas": """
    --csra_lambda -0.1 | --csra_lambda must be at least 0
    --csra_lambda nan | --csra_lambda must be at least 0
    --csra_lambda inf | --csra_lambda must be at least 0
    --drw_epoch 71 | --drw_epoch must lie within 1 and the 70 epochs of the training
    --head_lr 0 | --head_lr must be above 0
    --drop_rate 0.1 | Unrecognized options: --drop_rate
    """,
    "label_coupling": """
    --drop_rate 1 | --drop_rate must lie in [0, 1)
    --drop_rate nan | --drop_rate must lie in [0, 1)
    --coupling_alpha 0 | --coupling_alpha must be above 0
    --coupling_alpha -0.3 | --coupling_alpha must be above 0
    --coupling_l1 -1e-4 | --coupling_l1 must be at least 0
    --coupling_l1 nan | --coupling_l1 must be at least 0
    --coupling_lr 0 | --coupling_lr must be above 0
    --couplings_only a --init_from b | --couplings_only and --init_from contradict each other
    --weights_file a --init_from b | --weights_file and --init_from contradict each other
    --lr 0 | --lr must be above 0
    --lr inf | --lr must be above 0 and finite
    --rotation -1 | --rotation must lie within 0 and 180
    --rotation nan | --rotation must lie within 0 and 180
    --label_smooth 1 | --label_smooth must lie in [0, 1)
    --logit_adjust nan | --logit_adjust must be a finite number
    --loss_options gamma=x | --loss_options takes NAME=NUMBER, not gamma=x
    --drw_epoch 4 | --drw_epoch must lie within 1 and the 3 epochs of the training
    --couplings_only a.safetensors --no-refiner | --couplings_only and --no-refiner contradict
    --head_lr 0.1 | Unrecognized options: --head_lr
    --warmup_head_epochs 1 | Unrecognized options: --warmup_head_epochs
    """,
}


def lines(text: str) -> list[str]:
    return [line.strip() for line in text.strip().splitlines()]


CASES = [("standard_head", line) for line in lines(REFUSED)]
CASES += [(method, line) for method in METHODS for line in lines(OWN[method])]


@pytest.mark.parametrize(("method", "line"), CASES)
def test_refusals(capsys: pytest.CaptureFixture[str], method: str, line: str) -> None:
    arguments, _, sentence = line.partition(" | ")
    with pytest.raises(SystemExit) as ended:
        settings(*arguments.split(), method=method)
    assert ended.value.code == 2
    shown = " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert sentence in shown
    assert "Traceback" not in shown


@pytest.mark.parametrize(
    ("method", "arguments", "sentence"),
    [
        ("standard_head", "--preset smal", "no --preset 'smal': did you mean 'small'"),
        ("standard_head", "--sampler class-awar", "did you mean 'class_aware'"),
        ("label_coupling", "--loss=weighted_bc", "did you mean 'weighted_bce'"),
        ("csra_db_cas", "--loss distribution_balance", "did you mean 'distribution_balanced'"),
        ("csra_db_cas", "--csra_heads 3", "no --csra_heads '3'; it has 1, 2, 4, 6, 8"),
        ("csra_db_cas", "--csra-heads 99", "no --csra_heads '99'"),
        ("csra_db_cas", "--monitor auc", "no --monitor 'auc'"),
    ],
)
def test_a_choice_that_is_none_gives_the_nearest(
    method: str, arguments: str, sentence: str
) -> None:
    with pytest.raises(UserError, match=sentence):
        settings(*arguments.split(), method=method)
