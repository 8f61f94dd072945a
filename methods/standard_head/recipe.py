"""Recipe of standard_head: two training phases a fold, then out-of-fold scores."""

from core.data.loading.augmentation import light_transforms
from core.losses import prevalence_log_odds
from core.training.finish import finish_run
from core.training.loop import FoldTrainer
from core.training.optimizer import two_phases
from core.training.run import start_run
from methods.standard_head.config import Config
from methods.standard_head.model import build_model


def train(config: Config) -> None:
    """Train every fold: the head alone on a frozen backbone, then the whole model.

    Raises as `start_run` and `FoldTrainer.fit` do.
    """
    run = start_run("standard_head", config, build_model, light_transforms())
    config = run.config
    tau = config.loss.logit_adjust
    for fold in run.folds():
        model = build_model(config.model, len(run.class_names), run.weights, img_size=run.img_size)
        # logit adjustment adds tau times the prior in training; the bias starts with the rest
        model.head.start_at((1 - tau) * prevalence_log_odds(*fold.drawn_counts()))
        run.load_initial(model)
        FoldTrainer(run, fold, model, run.build_loss(fold), two_phases(config.optim)).fit()

    other, adjust = ("bce", "0") if config.loss.loss == "asl" else ("asl", "1")
    other_loss = ["--loss", other, "--logit_adjust", adjust, "--no-pos_weight"]
    finish_run(run, [*other_loss, "--out_dir", f"{config.run.out_dir}_{other}"])
