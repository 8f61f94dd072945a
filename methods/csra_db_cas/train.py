"""Class-specific residual attention, Distribution-Balanced loss, class-aware sampling.

Start it as `python methods/csra_db_cas/train.py --train_csv train.csv --train_dir images`, or on
many devices as `fabric run methods/csra_db_cas/train.py --devices 4`.
"""

from core.config.command_line import machine_preset, parse, run
from methods.csra_db_cas.config import PRESETS


def main() -> None:
    """Train every fold, then score their out-of-fold predictions together."""
    config = parse(PRESETS, auto=machine_preset, description=__doc__)
    # late, so that --help and a mistyped flag are answered at once
    from core.config.training import flat
    from core.data.loading.augmentation import Augmentation, strong_transforms
    from core.data.loading.fold_data import fold_data
    from core.data.splits.prepare import prepare
    from core.losses import build_loss, prevalence_log_odds
    from core.models.backbone import check_network, find_weights
    from core.models.init_from import find_initial
    from core.runs.folder import open_run
    from core.runtime.fabric import make_fabric, seed_stream
    from core.training.best_checkpoint import checkpoint_facts
    from core.training.dry_run import for_dry_run
    from core.training.finish import close_run
    from core.training.loop import Fit
    from core.training.optimizer import two_phases
    from methods.csra_db_cas.model import build_model, model_settings

    fabric = make_fabric(amp=config.loop.amp)
    say = print if fabric.is_global_zero else lambda _: None
    say(f"Preset {config.preset} (--preset) on {fabric.world_size} x {fabric.device.type}.")

    # all that can be wrong is found before anything is written
    prepared = prepare(config.data, config.split, say, config.loader.source_weights, config.run)
    measured = None
    if config.run.dry_run:
        config, prepared, measured = for_dry_run(config, prepared, fabric, say)
    classes, tau = prepared.table.class_names, config.loss.logit_adjust
    initial = find_initial("csra_db_cas", config, classes)
    weights, start = find_weights(config.model, optional=config.preset == "small")
    trial = build_model(config.model, len(classes), weights)
    say(initial.give(trial) if initial else start)
    check_network(trial, config.model.model, config.loader.img_size)
    augment = Augmentation(strong_transforms(config.loader.img_size), config.split.seed)
    folds = fold_data(fabric, prepared, config.loader, config.optim.accumulate, augment)
    facts = checkpoint_facts("csra_db_cas", model_settings(config.model), config, prepared)
    options = config.loss.build_options(config.optim.all_epochs)
    losses = [build_loss(config.loss.loss, *data.training_counts(), **options) for data in folds]
    folder = open_run(fabric, config.run, flat(config), prepared)

    for data, loss in zip(folds, losses, strict=True):
        seed_stream(config.split.seed, data.fold)
        model = build_model(config.model, len(classes), weights)
        model.head.start_at((1 - tau) * prevalence_log_odds(*data.drawn_counts()))
        if initial:
            initial.give(model)
        Fit(
            fabric=fabric,
            model=model,
            loss=loss,
            phases=two_phases(config.optim),
            data=data,
            optim=config.optim,
            loop=config.loop,
            seed=config.split.seed,
            folder=folder,
            facts=facts,
            measured=measured,
        ).run()

    if fabric.is_global_zero:
        other = "uniform" if config.loader.sampler == "class_aware" else "class_aware"
        try_next = ["--sampler", other, "--out_dir", f"{config.run.out_dir}_{other}"]
        settings = flat(config, whole_paths=not config.data.anonymous)
        close_run(folder, prepared, settings, try_next, measured)


if __name__ == "__main__":
    run(main)
