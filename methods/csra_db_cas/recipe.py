"""Recipe of csra_db_cas: residual attention, Distribution-Balanced loss, class-aware sampling."""

from core.data.loading.augmentation import strong_transforms
from core.losses import prevalence_log_odds
from core.training.finish import finish_run
from core.training.loop import FoldTrainer
from core.training.optimizer import two_phases
from core.training.run import start_run
from methods.csra_db_cas.config import Config
from methods.csra_db_cas.model import build_model


def train(config: Config) -> None:
    """Train every fold: the head alone on a frozen backbone, then the whole model.

    Raises as `start_run` and `FoldTrainer.fit` do.
    """
    transforms = strong_transforms(config.loader.img_size)
    run = start_run("csra_db_cas", config, build_model, transforms)
    optim, tau = run.config.optim, config.loss.logit_adjust
    for fold in run.folds():
        model = build_model(config.model, len(run.class_names), run.weights, img_size=run.img_size)
        # logit adjustment adds tau times the prior in training; the bias starts with the rest
        model.head.start_at((1 - tau) * prevalence_log_odds(*fold.drawn_counts()))
        run.load_initial(model)
        FoldTrainer(run, fold, model, run.build_loss(fold), two_phases(optim)).fit()

    other = "uniform" if config.loader.sampler == "class_aware" else "class_aware"
    finish_run(run, ["--sampler", other, "--out_dir", f"{run.config.run.out_dir}_{other}"])
