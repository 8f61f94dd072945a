"""Label coupling: a linear head, refined by learned couplings between the labels.

Start it as `python methods/label_coupling/train.py --train_csv train.csv --train_dir images
--test_dir test_images`, or on many devices as `fabric run methods/label_coupling/train.py
--devices 4`.
"""

from core.config.command_line import machine_preset, parse, run
from methods.label_coupling.config import PRESETS


def main() -> None:
    """Train every fold, score their out-of-fold predictions together, predict the test images."""
    config = parse(PRESETS, auto=machine_preset, description=__doc__)
    # late, so that --help and a mistyped flag are answered at once
    from core.config.training import flat
    from core.data.loading.augmentation import Augmentation, crop_transforms
    from core.data.loading.fold_data import fold_data
    from core.data.splits.prepare import prepare
    from core.errors import UserError
    from core.losses import build_loss, prevalence_log_odds
    from core.models.backbone import check_network, find_weights
    from core.models.init_from import find_initial
    from core.runs.folder import open_run
    from core.runtime.fabric import make_fabric, seed_stream
    from core.training.best_checkpoint import checkpoint_facts
    from core.training.dry_run import for_dry_run
    from core.training.finish import close_run
    from core.training.loop import Fit
    from core.training.optimizer import Phase
    from methods.label_coupling.fit_couplings import FrozenBase, fit_fold
    from methods.label_coupling.model import build_model, model_settings
    from methods.label_coupling.predict import find_test_images, predict_test_images

    fabric = make_fabric(amp=config.loop.amp)
    base = None
    if config.optim.couplings_only is not None:
        base = FrozenBase(config.optim.couplings_only)
        config = base.lend(config)
    say = print if fabric.is_global_zero else lambda _: None
    say(f"Preset {config.preset} (--preset) on {fabric.world_size} x {fabric.device.type}.")

    # all that can be wrong is found before anything is written
    prepared = prepare(config.data, config.split, say, config.loader.source_weights, config.run)
    measured = None
    if config.run.dry_run:
        config, prepared, measured = for_dry_run(config, prepared, fabric, say)
    table, tau, optim = prepared.table, config.loss.logit_adjust, config.optim
    classes = len(table.class_names)
    if config.model.refiner and classes < 2:
        raise UserError(
            f"there is one label ({table.class_names[0]}) and couplings need two: name more with "
            "--labels, or train with --no-refiner"
        )
    test = find_test_images(fabric, config, table)
    initial = find_initial("label_coupling", config, table.class_names)
    if base is not None:
        base.order_as(table.class_names)
        weights, start = None, base.told(config.data.train_csv)
    else:
        weights, start = find_weights(config.model, optional=config.preset == "small")
        trial = build_model(config.model, classes, weights)
        start = initial.give(trial) if initial else start
        check_network(trial, config.model.model, config.loader.img_size)
    say(start)
    size, rotation = config.loader.img_size, config.augment.rotation
    transforms = crop_transforms(size, rotation=rotation, jitter=config.augment.color_jitter)
    augment = Augmentation(transforms, config.split.seed)
    folds = fold_data(fabric, prepared, config.loader, optim.accumulate, augment)
    facts = checkpoint_facts("label_coupling", model_settings(config.model), config, prepared)
    options = config.loss.build_options(optim.epochs)
    losses = [build_loss(config.loss.loss, *data.training_counts(), **options) for data in folds]
    folder = open_run(fabric, config.run, flat(config), prepared)

    rates = {"backbone": optim.lr, "head": optim.lr}
    if config.model.refiner:
        rates["head.coupling"] = optim.coupling_lr
    phase = Phase(
        "all", optim.epochs, rates, optim.weight_decay, optim.warmup_epochs, optim.coupling_l1
    )
    for data, loss in zip(folds, losses, strict=True):
        if base is not None:
            fit_fold(fabric, base, data, loss, config, folder, facts)
            continue
        seed_stream(config.split.seed, data.fold)
        model = build_model(config.model, classes, weights)
        model.head.start_at((1 - tau) * prevalence_log_odds(*data.drawn_counts()))
        if initial:
            initial.give(model)
        Fit(
            fabric=fabric,
            model=model,
            loss=loss,
            phases=[phase],
            data=data,
            optim=optim,
            loop=config.loop,
            seed=config.split.seed,
            folder=folder,
            facts=facts,
            measured=measured,
        ).run()

    if fabric.is_global_zero:
        other = ["--loss", "bce" if config.loss.loss == "asl" else "asl"]
        try_next = [*other, "--out_dir", f"{config.run.out_dir}_{other[1]}"]
        if test is not None:
            again = config.test.out_csv.with_stem(f"{config.test.out_csv.stem}_{other[1]}")
            try_next += ["--out_csv", str(again)]
        settings = flat(config, whole_paths=not config.data.anonymous)
        close_run(folder, prepared, settings, try_next, measured)
    if test is not None:
        predict_test_images(fabric, test, folder, prepared, config)


if __name__ == "__main__":
    run(main)
