"""Recipe of label_coupling: a linear head refined by learned couplings between the labels."""

from dataclasses import replace

from core.data.loading.augmentation import crop_transforms
from core.losses import prevalence_log_odds
from core.training.loop import FoldTrainer
from core.training.optimizer import Phase, retraining
from core.training.run import open_folder, prepare_run
from methods.label_coupling.config import Config, CouplingOptimConfig
from methods.label_coupling.fit_couplings import train_couplings_only
from methods.label_coupling.model import build_model, check_labels
from methods.label_coupling.predict import find_test_images, finish_and_predict


def train(config: Config) -> None:
    """Train every fold in one phase, then predict the test images.

    Raises as `start_run` and `FoldTrainer.fit` do, and UserError for invalid test images.
    """
    if config.optim.couplings_only is not None:
        train_couplings_only(config, config.optim.couplings_only)
        return
    start = prepare_run("label_coupling", config)
    check_labels(config.model, start.class_names)
    test = find_test_images(start)
    rotation, jitter = config.augment.rotation, config.augment.color_jitter
    transforms = crop_transforms(config.loader.img_size, rotation=rotation, jitter=jitter)
    run = open_folder(start, build_model, transforms)
    phases = build_phases(run.config.optim, refiner=config.model.refiner)
    tau = config.loss.logit_adjust
    for fold in run.folds():
        model = build_model(config.model, len(run.class_names), run.weights, img_size=run.img_size)
        model.head.start_at((1 - tau) * prevalence_log_odds(*fold.drawn_counts()))
        run.load_initial(model)
        FoldTrainer(run, fold, model, run.build_loss(fold), phases).fit()
    finish_and_predict(run, test)


def build_phases(optim: CouplingOptimConfig, *, refiner: bool) -> list[Phase]:
    """A phase of the whole model, or of the head if the backbone is frozen, then `retraining`."""
    frozen = optim.freeze_backbone
    rates = {"head": optim.lr} if frozen else {"backbone": optim.lr, "head": optim.lr}
    couplings = {"head.coupling": optim.coupling_lr} if refiner else {}
    phase = Phase(
        "head" if frozen else "all",
        optim.epochs,
        rates | couplings,
        optim.weight_decay,
        optim.warmup_epochs,
        optim.coupling_l1,
        head_views=optim.cached_passes,
        layer_decay=optim.layer_decay,
    )
    again = retraining(optim)
    return [phase, replace(again, rates=again.rates | couplings, l1=optim.coupling_l1)]
