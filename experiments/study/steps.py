"""The steps of the study; each calls one command."""

from collections.abc import Collection, Iterator
from dataclasses import replace

from circuitry.training import SaeTraining
from experiments.study.place import GIB, StudyPlace, program
from experiments.study.plan import Cost, Step
from experiments.study.study_set import ALIGNED_DOMAIN, DIVERSITY, StudyTraining

SAE_OPERATIONS = 12
"""Operations of an autoencoder for each sample, unit and feature: two products, forward and twice that backward."""
GRAPH_BYTES = 10_000_000  # bytes of the scores of a class in a domain, of all images and of parts, for RN50
N_CIRCUIT_IMAGES, N_SHARED_IMAGES = 50, 20
"""Images of a class in a domain on which circuits are found: of one model, and of each that is compared."""
STUDY_FIGURES = {
    "generalization": (
        *(
            "accuracy_by_setting",
            "domain_interpolation",
            "class_interpolation",
            "imagenet_sketch",
            "base_sets",
        ),
        *("imagenet_sketch_classes", "aligned_captions"),
        *(
            "architectures",
            "supervised_against_clip",
            "top5_and_f1",
            "effective_robustness",
        ),
    ),
    "sharing": ("sharing_by_setting",),
    "separation": ("embedding_map", "separation"),
    "representations": ("cka_over_depth", "cka_apart", "cka_by_group"),
    "shared-circuitry": ("sharing_against_accuracy",),
    "circuits": ("units_apart", "domain_similarity", "similarity_by_group"),
}  # step -> the figures  that are drawn from its tables


def measurement_steps(place: StudyPlace) -> Iterator[Step]:
    """Yield the steps that measure models: autoencoders and shared features, embeddings, CKA, circuits."""
    described = [
        one for one in place.trainings
        if one.mixture.base == place.scale.sae_base and one.mixture.settings.setting in ("cg-high", "leave-out")
        and not one.supervised
    ]  # fmt: skip
    for one in described:
        yield from _autoencoder(place, one)
    if described:
        folder, results = (
            place.out / "sharing",
            [place.out / "features" / one.name / "results" for one in described],
        )
        options, outputs = (
            ["--features", *results, "--out", folder],
            [folder / "tables" / "sharing_over_settings.csv"],
        )
        needs = [f"features-{one.name}" for one in described]
        yield place.step(
            "sharing", "autoencoders", "features-over-settings", options, outputs, needs
        )
    if aligned := _models(place, ["aligned"], ALIGNED_DOMAIN):
        yield _separation(place, _models(place, ["cg-high"], ALIGNED_DOMAIN), aligned)
        yield _representations(place, aligned[0])
        yield _circuits(place, aligned[0])
    if compared := _models(
        place, ["natural-only", *DIVERSITY]
    ):  # photographs alone, and the 15 settings
        yield _shared_circuitry(place, compared)


def _measured(place: StudyPlace, one: StudyTraining) -> list[object]:
    """Return the options of a trained model, and of the images that it is measured on."""
    name, checkpoint = place.scale.settings(one).model, place.checkpoint(one)
    data = ["--data", place.material.domainnet, "--device", place.scale.device]
    return ["--study", "--model", name, "--checkpoint", checkpoint, *data]


def _autoencoder(place: StudyPlace, one: StudyTraining) -> Iterator[Step]:
    """Yield the steps that train an autoencoder on a model's embeddings, and compare its features."""
    settings, counted = SaeTraining(steps=None, drop_last=False), place.counted(one)
    sae, folder = place.out / "sae" / one.name, place.out / "features" / one.name
    n_images = place.material.base_sizes[place.scale.sae_base] + sum(
        place.material.counts.values()
    )
    passes = (
        SAE_OPERATIONS * settings.expansion * counted.embedding**2 * settings.epochs
    )
    # The mixture has the base set's training images with full paths; those of DomainNet count once.
    trained_on = place.tables(one.mixture) / f"{one.mixture.name}.tsv"
    options = [*_measured(place, one), "--more-tables", trained_on, "--out", sae]
    cost = place.cost(
        (counted.image + passes) * n_images, 1, 4.0 * counted.embedding * n_images
    )
    weights = sae / "sae.safetensors"
    yield place.step(
        f"sae-{one.name}",
        "autoencoders",
        "train-sae",
        options,
        [weights],
        [one.name],
        cost,
    )
    options = [
        *_measured(place, one),
        "--held-out",
        *place.material.held_out,
        "--autoencoder",
        weights,
    ]
    options += ["--out", folder, "--results", folder / "results"]
    outputs, cost = (
        [folder / "results" / "feature_sharing_summary.csv"],
        _classified(place, one),
    )
    needs = [f"sae-{one.name}"]
    yield place.step(
        f"features-{one.name}",
        "autoencoders",
        "features",
        options,
        outputs,
        needs,
        cost,
    )


def _separation(
    place: StudyPlace, standard: list[StudyTraining], aligned: list[StudyTraining]
) -> Step:
    """Return the step that maps embeddings of models with standard and with aligned captions."""
    models, material, results = (
        [*standard, *aligned],
        place.material,
        place.out / "tables" / "separation",
    )
    kinds = ["standard captions"] * len(standard) + ["aligned captions"] * len(aligned)
    options: list[object] = [
        "--study",
        "--model",
        place.scale.settings(aligned[0]).model,
    ]
    options += [
        "--models",
        *(
            f"{kind}={place.checkpoint(one)}"
            for kind, one in zip(kinds, models, strict=True)
        ),
    ]
    options += [
        "--data",
        material.domainnet,
        "--held-out",
        *material.held_out,
        "--device",
        place.scale.device,
    ]
    options += ["--out", place.out / "separation", "--results", results]
    outputs, needs = (
        [results / "map.csv", results / "summary.csv"],
        [one.name for one in models],
    )
    cost = _classified(place, *models)
    return place.step(
        "separation", "representations", "separation", options, outputs, needs, cost
    )


def _representations(place: StudyPlace, one: StudyTraining) -> Step:
    results = place.out / "tables" / "representations"
    options = [*_measured(place, one), "--held-out", *place.material.held_out]
    options += ["--out", place.out / "representations", "--results", results]
    outputs, name = (
        [results / "cka_over_depth.csv", results / "cka_apart.csv"],
        "representations",
    )
    return place.step(
        name, name, "represent", options, outputs, [one.name], _classified(place, one)
    )


def _circuits(place: StudyPlace, one: StudyTraining) -> Step:
    folder, n_cells = place.out / "circuits", len(place.material.counts)
    options = [
        *_measured(place, one),
        "--held-out",
        *place.material.held_out,
        "--out",
        folder,
    ]
    outputs = [
        folder / "tables" / f"{name}.csv"
        for name in (
            "edge_jaccard_matrix",
            "domain_apart_over_depth",
            "similarity_by_group",
        )
    ]
    operations = place.circuit_operations * n_cells * N_CIRCUIT_IMAGES
    cost = place.cost(operations, place.scale.gpus, float(GRAPH_BYTES * n_cells))
    return place.step(
        "circuits", "circuits", "compare", options, outputs, [one.name], cost
    )


def _shared_circuitry(place: StudyPlace, models: list[StudyTraining]) -> Step:
    """Return the step that sets what domains share in each model against how the models generalize."""
    material, name = place.material, "shared-circuitry"
    results, folders = (
        place.out / "tables" / name,
        [place.folder(one) for one in models],
    )
    options: list[object] = [
        "--runs",
        *folders,
        "--data",
        material.domainnet,
        "--decoding",
        "as-stored",
    ]
    options += ["--n-images", N_SHARED_IMAGES]
    options += [
        "--out",
        place.out / name,
        "--results",
        results,
        "--device",
        place.scale.device,
    ]
    n_domains = len({domain for domain, _ in material.counts})
    circuits = (
        place.circuit_operations * n_domains * len(material.held_out) * N_SHARED_IMAGES
    )
    passes = place.counted(models[0]).image * (
        sum(material.counts.values()) + material.n_test
    )
    cost = place.cost(len(models) * (circuits + passes), place.scale.gpus)
    outputs = [results / "points.csv", results / "relations.csv"]
    return place.step(
        name, "circuits", name, options, outputs, [one.name for one in models], cost
    )


def _classified(place: StudyPlace, *models: StudyTraining) -> Cost:
    """Return what one pass of all test images through models costs."""
    return place.cost(
        sum(place.counted(one).image for one in models) * place.material.n_test, 1
    )


def _models(
    place: StudyPlace, settings: Collection[str], domain: str | None = None
) -> list[StudyTraining]:
    """Return the models of some settings, of the first architecture on the main base set, one for each seed."""
    return [
        one for one in place.trainings
        if one.mixture.settings.setting in settings and domain in (None, one.mixture.settings.test_domain)
        and (one.mixture.base, one.mixture.sketches) == (place.material.main_base, None)
        and (one.model, one.supervised) == (place.scale.models[0], False)
    ]  # fmt: skip


def figure_steps(place: StudyPlace, made: set[str]) -> Iterator[Step]:
    """Yield a step for every figure whose tables are made."""
    sketches, out = (
        any(one.mixture.sketches for one in place.trainings),
        place.out / "figures",
    )
    for source in (source for source in STUDY_FIGURES if source in made):
        apart = source in (
            "sharing",
            "circuits",
        )  # their scripts write no small tables of their own
        tables = (
            place.out / source / "tables" if apart else place.out / "tables" / source
        )
        for name in STUDY_FIGURES[source]:
            if sketches or not name.startswith("imagenet_sketch"):
                command = (
                    "python",
                    *program("figures"),
                    name,
                    "--tables",
                    f"{tables}",
                    "--out",
                    f"{out}",
                )
                yield Step(
                    f"figure-{name}",
                    "figures",
                    command,
                    (f"figures/{name}.html",),
                    (source,),
                )


CLIP_BYTES, SUPERVISED_BYTES, ROW_BYTES = 12, 4, 200
"""Bytes of a checkpoint for each weight (open_clip also stores two moments of Adam), and of a row of a table."""


def study_steps(place: StudyPlace) -> list[Step]:
    """Return all steps of the study, each after those that it needs."""
    models = [training_step(place, one) for one in place.trainings]
    made = [
        *mixture_steps(place),
        *models,
        evaluation_step(place),
        *measurement_steps(place),
    ]
    return [*made, *figure_steps(place, {step.name for step in made})]


def mixture_steps(place: StudyPlace) -> Iterator[Step]:
    """Yield one step for all mixtures of the main base set, and one for each mixture of the others."""
    material = place.material
    firsts = {
        place.making(one.mixture): one.mixture for one in reversed(place.trainings)
    }
    for name, mixture in reversed(firsts.items()):
        alone, folder = mixture.base != material.main_base, place.tables(mixture)
        options = [
            "--study",
            "--data",
            material.domainnet,
            "--held-out",
            *material.held_out,
            "--out",
            folder,
        ]
        options += ["--missing-captions", material.no_caption]
        if mixture.base is not None:
            base = material.bases[mixture.base]
            options += ["--base", f"{base.name}={base.path}"]
            options += (
                ["--base-images", f"{base.name}={base.images}"] if base.images else []
            )
            split = material.validation.get(base.name)
            options += ["--base-validation", f"{base.name}={split}"] if split else []
        if alone:
            options += [
                "--setting",
                mixture.settings.setting,
                "--test-domain",
                mixture.settings.test_domain,
            ]
        else:
            options += ["--all"]
            options += (
                ["--imagenet-sketch", material.imagenet_sketch]
                if material.imagenet_sketch
                else []
            )
        made = {
            one.mixture for one in place.trainings if place.making(one.mixture) == name
        }
        disk = sum(material.size(one) for one in made) * ROW_BYTES / GIB
        done = folder / (f"{mixture.name}.json" if alone else "mixtures.csv")
        yield place.step(
            name, "mixtures", "mixtures", options, [done], cost=Cost(disk_gib=disk)
        )


def training_step(place: StudyPlace, one: StudyTraining) -> Step:
    """Return the step of a training."""
    counted, folder = place.counted(one), place.folder(one)
    options: list[object] = [
        "--study",
        "--table",
        place.tables(one.mixture) / f"{one.mixture.name}.tsv",
    ]
    options += ["--out", folder, "--seed", one.seed]
    options += (
        ["--data", place.material.domainnet]
        if one.supervised
        else ["--preset", place.scale.preset(one)]
    )
    options += (
        []
        if place.keep_checkpoints is None
        else ["--keep-checkpoints", place.keep_checkpoints]
    )
    if one.supervised:
        command, below, gpus, of_weight = (
            "train-supervised",
            "supervised",
            4,
            SUPERVISED_BYTES,
        )
        each = 3 * counted.image
    else:
        command, below, gpus, of_weight = (
            "train",
            "clip",
            place.scale.settings(one).processes,
            CLIP_BYTES,
        )
        each = (
            counted.training_step + counted.image
        )  # checkpointing makes activations a second time
    disk = float(of_weight * counted.parameters * place.n_checkpoints(one))
    cost = place.cost(
        each * place.epochs(one) * place.material.size(one.mixture),
        gpus,
        disk,
        place.half_rate,
    )
    cost = replace(cost, training_steps=place.training_steps(one))
    outputs = [folder / below / name for name in ("run.json", "manifest.json")]
    return place.step(
        one.name,
        "trainings",
        command,
        options,
        outputs,
        [place.making(one.mixture)],
        cost,
    )


def evaluation_step(place: StudyPlace) -> Step:
    """Return the step that classifies all test images with every kept checkpoint of all models."""
    results = place.out / "tables" / "generalization"
    options: list[object] = [
        "--study",
        "--runs",
        place.out / "runs",
        "--data",
        place.material.domainnet,
    ]
    options += (
        ["--imagenet", place.material.imagenet] if place.material.imagenet else []
    )
    options += [
        "--out",
        place.out / "evaluation",
        "--results",
        results,
        "--device",
        place.scale.device,
    ]
    outputs = [
        results / f"{name}.csv"
        for name in ("told_apart", "settings", "differences", "measures", "robustness")
    ]
    passes = sum(
        place.counted(one).image * place.n_checkpoints(one) for one in place.trainings
    )
    cost = place.cost(passes * place.material.n_test, place.scale.gpus)
    needs = [one.name for one in place.trainings]
    return place.step(
        "generalization", "evaluation", "generalization", options, outputs, needs, cost
    )
