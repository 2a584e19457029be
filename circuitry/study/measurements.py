"""The steps of the study that look into finished models, and its figures; each the command of its script."""

from collections.abc import Iterator

from circuitry.study.place import StudyPlace
from circuitry.study.plan import Step
from circuitry.study.trainings import ALIGNED_DOMAIN, StudyTraining
from circuitry.training.settings import SaeTraining

SAE_OPERATIONS = 12
"""Of an autoencoder for each sample, unit and feature: two products, forward and twice that backward."""
GRAPH_BYTES = 10_000_000
"""Of the scores of a class in a domain, of all images and of parts, for RN50."""
N_CIRCUIT_IMAGES = 50
FIGURES = {
    "accuracy_by_setting": "generalization",
    "domain_interpolation": "generalization",
    "class_interpolation": "generalization",
    "imagenet_sketch": "generalization",
    "base_sets": "generalization",
    "architectures": "generalization",
    "supervised_against_clip": "generalization",
    "top5_and_f1": "generalization",
    "effective_robustness": "generalization",
    "sharing_by_setting": "sharing",
    "embedding_map": "separation",
    "separation": "separation",
    "cka_over_depth": "representations",
    "cka_apart": "representations",
    "units_apart": "circuits",
    "domain_similarity": "circuits",
}
"""Script of a figure -> the step that its tables are from."""


def measurement_steps(place: StudyPlace) -> Iterator[Step]:
    """Yield the steps that look into models: autoencoders and what they share, embeddings, CKA, circuits.

    Autoencoders are of CG high and leave-out on the base set of the scale; embeddings of standard and of aligned
    captions with the same held-out domain; CKA and circuits of the first aligned model.
    """
    described = [
        one
        for one in place.trainings
        if one.mixture.base == place.scale.sae_base
        and one.mixture.settings.setting in ("cg-high", "leave-out")
        and not one.supervised
    ]
    for one in described:
        yield from _autoencoder(place, one)
    if described:
        folder, results = place.out / "sharing", [place.out / "features" / one.name / "results" for one in described]
        yield place.script(
            "sharing",
            "autoencoders",
            "sharing_over_settings",
            ["--results", *results, "--out", folder],
            [folder / "tables" / "sharing_over_settings.csv"],
            [f"features-{one.name}" for one in described],
        )
    aligned = _models(place, "aligned")
    if aligned:
        yield _separation(place, _models(place, "cg-high"), aligned)
        yield _representations(place, aligned[0])
        yield _circuits(place, aligned[0])


def _autoencoder(place: StudyPlace, one: StudyTraining) -> Iterator[Step]:
    """Yield the steps that train an autoencoder on a model's embeddings, and compare its features."""
    base, settings, counted = place.material.bases[place.scale.sae_base], SaeTraining.study(), place.counted(one)
    sae, folder = place.out / "sae" / one.name, place.out / "features" / one.name
    n_images = place.material.base_sizes[base.name] + sum(place.material.counts.values())
    passes = SAE_OPERATIONS * settings.expansion * counted.embedding**2 * settings.epochs
    yield place.script(
        f"sae-{one.name}",
        "autoencoders",
        "train_sae",
        [*place.model(one), "--table", base.path, "--out", sae, *place.scale.sae],
        [sae / "sae.safetensors"],
        [one.name],
        place.cost((counted.image + passes) * n_images, 1, 4.0 * counted.embedding * n_images),
    )
    options = [*place.model(one), "--held-out", *place.material.held_out, "--autoencoder", sae / "sae.safetensors"]
    yield place.script(
        f"features-{one.name}",
        "autoencoders",
        "shared_features",
        [*options, "--out", folder, "--results", folder / "results"],
        [folder / "results" / "feature_sharing_summary.csv"],
        [f"sae-{one.name}"],
        place.cost(counted.image * place.material.n_test, 1),
    )


def _separation(place: StudyPlace, standard: list[StudyTraining], aligned: list[StudyTraining]) -> Step:
    """Return the step that maps embeddings of models with standard and with aligned captions."""
    models, material, results = [*standard, *aligned], place.material, place.out / "tables" / "separation"
    kinds = ["standard captions"] * len(standard) + ["aligned captions"] * len(aligned)
    options: list[object] = ["--study", "--model", place.scale.settings(aligned[0]).model]
    options += ["--models", *(f"{kind}={place.checkpoint(one)}" for kind, one in zip(kinds, models, strict=True))]
    options += ["--data", material.domainnet, "--held-out", *material.held_out, "--device", place.scale.device]
    return place.script(
        "separation",
        "representations",
        "embedding_separation",
        [*options, "--out", place.out / "separation", "--results", results, *place.scale.separation],
        [results / "map.csv", results / "summary.csv"],
        [one.name for one in models],
        place.cost(sum(place.counted(one).image for one in models) * material.n_test, 1),
    )


def _representations(place: StudyPlace, one: StudyTraining) -> Step:
    results = place.out / "tables" / "representations"
    options = [*place.model(one), "--held-out", *place.material.held_out]
    return place.script(
        "representations",
        "representations",
        "representations",
        [*options, "--out", place.out / "representations", "--results", results],
        [results / "cka_over_depth.csv", results / "cka_apart.csv"],
        [one.name],
        place.cost(place.counted(one).image * place.material.n_test, 1),
    )


def _circuits(place: StudyPlace, one: StudyTraining) -> Step:
    folder, n_cells = place.out / "circuits", len(place.material.counts)
    options = [*place.model(one), "--held-out", *place.material.held_out, "--out", folder, *place.scale.circuits]
    return place.script(
        "circuits",
        "circuits",
        "compare_circuits",
        options,
        [folder / "tables" / f"{name}.csv" for name in ("edge_jaccard_matrix", "domain_apart_over_depth")],
        [one.name],
        place.cost(
            place.circuit_operations * n_cells * N_CIRCUIT_IMAGES, place.scale.gpus, float(GRAPH_BYTES * n_cells)
        ),
        shared=True,
    )


def _models(place: StudyPlace, setting: str) -> list[StudyTraining]:
    """Return the models of a setting whose embeddings and circuits are looked at, a seed each."""
    return [
        one
        for one in place.trainings
        if (one.mixture.settings.setting, one.mixture.settings.test_domain) == (setting, ALIGNED_DOMAIN)
        and (one.mixture.base, one.mixture.sketches) == (place.material.main_base, None)
        and (one.model, one.supervised) == (place.scale.models[0], False)
    ]


def figure_steps(place: StudyPlace, made: set[str]) -> Iterator[Step]:
    """Yield a step for every figure whose tables are made."""
    sketches = any(one.mixture.sketches for one in place.trainings)
    for script, source in FIGURES.items():
        if source in made and (sketches or script != "imagenet_sketch"):
            apart = source in ("sharing", "circuits")  # their scripts write no small tables of their own
            tables = place.out / source / "tables" if apart else place.out / "tables" / source
            stem = f"figures/{script}"
            command = ("python", f"{stem}.py", "--results", f"{tables}", "--out", f"{place.out / stem}")
            yield Step(f"figure-{script}", "figures", command, (f"{stem}.html",), (source,))
