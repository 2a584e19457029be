"""The steps of the study up to finished models: mixtures, trainings, evaluation; each calls one command."""

from collections.abc import Iterator
from dataclasses import replace

from experiments.study.measurements import figure_steps, measurement_steps
from experiments.study.place import GIB, StudyPlace
from experiments.study.plan import Cost, Step
from experiments.study.trainings import StudyTraining

CLIP_BYTES, SUPERVISED_BYTES, ROW_BYTES = 12, 4, 200
"""Bytes of a checkpoint for each weight (open_clip also stores two moments of Adam), and of a row of a table."""


def study_steps(place: StudyPlace) -> list[Step]:
    """Return all steps of the study, each after those that it needs."""
    models = [training_step(place, one) for one in place.trainings]
    made = [*mixture_steps(place), *models, evaluation_step(place), *measurement_steps(place)]
    return [*made, *figure_steps(place, {step.name for step in made})]


def mixture_steps(place: StudyPlace) -> Iterator[Step]:
    """Yield one step for all mixtures of the main base set, and one for each mixture of the others."""
    material = place.material
    firsts = {place.making(one.mixture): one.mixture for one in reversed(place.trainings)}
    for name, mixture in reversed(firsts.items()):
        alone, folder = mixture.base != material.main_base, place.tables(mixture)
        options = ["--study", "--data", material.domainnet, "--held-out", *material.held_out, "--out", folder]
        options += ["--missing-captions", material.no_caption]
        if mixture.base is not None:
            base = material.bases[mixture.base]
            options += ["--base", f"{base.name}={base.path}"]
            options += ["--base-images", f"{base.name}={base.images}"] if base.images else []
            split = material.validation.get(base.name)
            options += ["--base-validation", f"{base.name}={split}"] if split else []
        if alone:
            options += ["--setting", mixture.settings.setting, "--test-domain", mixture.settings.test_domain]
        else:
            options += ["--all"]
            options += ["--imagenet-sketch", material.imagenet_sketch] if material.imagenet_sketch else []
        made = {one.mixture for one in place.trainings if place.making(one.mixture) == name}
        disk = sum(material.size(one) for one in made) * ROW_BYTES / GIB
        done = folder / (f"{mixture.name}.json" if alone else "mixtures.csv")
        yield place.step(name, "mixtures", "mixtures", options, [done], cost=Cost(disk_gib=disk))


def training_step(place: StudyPlace, one: StudyTraining) -> Step:
    """Return the step of a training."""
    counted, folder = place.counted(one), place.folder(one)
    options: list[object] = ["--study", "--table", place.tables(one.mixture) / f"{one.mixture.name}.tsv"]
    options += ["--out", folder, "--seed", one.seed]
    options += ["--data", place.material.domainnet] if one.supervised else ["--preset", place.scale.preset(one)]
    options += [] if place.keep_checkpoints is None else ["--keep-checkpoints", place.keep_checkpoints]
    if one.supervised:
        command, below, gpus, of_weight = "train-supervised", "supervised", 4, SUPERVISED_BYTES
        each = 3 * counted.image
    else:
        command, below, gpus, of_weight = "train", "clip", place.scale.settings(one).processes, CLIP_BYTES
        each = counted.training_step + counted.image  # checkpointing makes activations a second time
    disk = float(of_weight * counted.parameters * place.n_checkpoints(one))
    cost = place.cost(each * place.epochs(one) * place.material.size(one.mixture), gpus, disk, place.half_rate)
    cost = replace(cost, training_steps=place.training_steps(one))
    outputs = [folder / below / name for name in ("run.json", "manifest.json")]
    return place.step(one.name, "trainings", command, options, outputs, [place.making(one.mixture)], cost)


def evaluation_step(place: StudyPlace) -> Step:
    """Return the step that classifies all test images with every kept checkpoint of all models."""
    results = place.out / "tables" / "generalization"
    options: list[object] = ["--study", "--runs", place.out / "runs", "--data", place.material.domainnet]
    options += ["--imagenet", place.material.imagenet] if place.material.imagenet else []
    options += ["--out", place.out / "evaluation", "--results", results, "--device", place.scale.device]
    outputs = [results / f"{name}.csv" for name in ("told_apart", "settings", "differences", "measures", "robustness")]
    passes = sum(place.counted(one).image * place.n_checkpoints(one) for one in place.trainings)
    cost = place.cost(passes * place.material.n_test, place.scale.gpus)
    needs = [one.name for one in place.trainings]
    return place.step("generalization", "evaluation", "generalization", options, outputs, needs, cost)
