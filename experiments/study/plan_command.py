"""The whole study as one plan: mixtures, trainings, evaluation, autoencoders, representations, circuits, figures.

--plan lists every step with its command, counted operations, estimated GPU hours and disk. --do does the steps: here
in order, or as SLURM jobs that wait for each other (--cluster slurm). After a kill the same command resumes. --only
chooses kinds of steps, or steps by name.

The base set imagenet-captions gets all steps of the study (without a base set DomainNet alone does), cc3m and cc12m get
the study's seven mixtures, and cc12m the autoencoders. --miniature runs the same plan on drawn images with tiny models,
trained for two passes, in minutes: it tests the plan, and its results mean nothing.

    python -m experiments.study plan --data DomainNet --imagenet-sketch ImageNet-Sketch/sketch \\
        --base imagenet-captions=imagenet_captions.json cc3m=cc3m.tsv cc12m=cc12m.tsv \\
        --base-images imagenet-captions=ImageNet/train --base-validation imagenet-captions=split.json --plan
    python -m experiments.study plan ... --do --cluster slurm --job-options slurm_partition=gpu cpus_per_task=32
    python -m experiments.study plan ... --do --only figures
    python -m experiments.study plan --miniature --out runs/miniature --do
"""

import logging
import shlex
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Literal

from circuitry.runs import Count, InputError, Natural, job_options, whole_file
from circuitry import Encoder, class_logit
from circuitry.circuits import AttributionSettings, count_operations, left_rule
from circuitry.data import DomainFolder, chosen_names, study_held_out
from circuitry.models import register_model
from circuitry.training import NoCaption, clip_preset
from experiments.drawn import TOY_CLASSES, DrawingSettings, write_toy
from experiments.study.base_sets import named_base_sets
from experiments.study.mixture_files import STUDY_SEED
from experiments.study.place import Material, Scale, StudyPlace, count_model
from experiments.study.plan import Cost, Plan, Step
from experiments.study.steps import study_steps
from experiments.study.study_set import study_mixtures, study_trainings

import open_clip
import pandas as pd
import torch

log = logging.getLogger(__name__)

CHECKOUT = (
    Path(__file__).resolve().parents[2]
)  # where commands run, so that Python finds the programs of the study
POINTS = 10  # points of the rule of the study's circuits

MAIN, PHOTOS = "imagenet-captions", "photos"
KNOWN_BASES = (MAIN, "cc3m", "cc12m")
STUDY = Scale(
    ("rn50", "vit-s-32", "swin-t"),
    sae_base="cc12m",
    epochs=32,
    supervised_epochs=90,
    gpus=8,
)
MINIATURE = Scale(
    ("rn-tiny", "vit-tiny"),
    sae_base=PHOTOS,
    epochs=2,
    supervised_epochs=2,
    batch_size=32,
    supervised_batch_size=64,
    device="cpu",
    options={
        "train": (
            *(
                "--epochs",
                "2",
                "--batch-size",
                "32",
                "--warmup",
                "3",
                "--precision",
                "fp32",
                "--no-grad-checkpointing",
            ),
            *("--workers", "0", "--device", "cpu", "--no-progress"),
        ),
        "train-supervised": (
            *(
                "--model",
                "rn-tiny",
                "--epochs",
                "2",
                "--milestones",
                "1",
                "--batch-size",
                "64",
                "--precision",
                "fp32",
            ),
            *(
                "--keep-checkpoints",
                "1",
                "--workers",
                "0",
                "--device",
                "cpu",
                "--no-progress",
            ),
        ),
        "train-sae": ("--epochs", "2", "--batch-size", "128"),
        "generalization": ("--test-domains", "quickdraw", "sketch"),
        "compare": ("--n-images", "4", "--rule", "left-2"),
        "separation": ("--map", "auto"),
        "shared-circuitry": ("--sae-steps", "5", "--n-images", "4", "--n-tested", "1"),
    },
)  # tiny models, two passes; autoencoders of the models with further photographs
MINIATURE_MIXTURES = (
    *(
        "natural-only",
        "cg-low-quickdraw",
        "cg-high-quickdraw",
        "leave-out-quickdraw",
        "upper-high-quickdraw",
    ),
    *(
        "aligned-quickdraw",
        "class-interpolation-0.4-low-quickdraw",
        "class-interpolation-0.4-quickdraw",
    ),
    *("cg-low-sketch", "cg-high-sketch", "domain-interpolation-clipart-sketch"),
    "domain-interpolation-clipart+quickdraw-sketch",
)  # what is trained on in the miniature: one of each kind


@dataclass(frozen=True)
class Config:
    """Settings of the study."""

    NOT_BOTH: ClassVar = (("data", "miniature"), ("base", "miniature"))
    ONE_OF: ClassVar = (("data", "miniature"),)

    out: Path = Path("runs/study")
    """Folder of the results: of all steps."""
    data: Path | None = None
    """Folder of the images: DomainNet with its twelve lists; the miniature needs none."""
    base: tuple[str, ...] = ()
    """Base sets of captioned photos, NAME=PATH: imagenet-captions, cc3m, cc12m; see the program mixtures."""
    base_images: tuple[str, ...] = ()
    """Folders that paths of base sets start from, NAME=FOLDER."""
    base_validation: tuple[str, ...] = ()
    """Images of base sets for validation: NAME=SHARE, or NAME=FILE."""
    missing_captions: NoCaption = "skip"
    """What happens to images without a caption that the trainer reads as text: an error, or left out and counted."""
    imagenet_sketch: Path | None = None
    """Folder of ImageNet-Sketch, <wnid>/<file>: without it its mixtures are left out."""
    imagenet: Path | None = None
    """Folder of ImageNet's validation images, <wnid>/<file>, to be classified, too."""
    miniature: bool = False
    """Drawn images and tiny models, on a CPU."""
    n_train: Count = 6
    """Drawn training images per class and style: of the miniature, which has as many for tests."""
    plan: bool = False
    """Only print the steps."""
    do: bool = False
    """Do the unfinished steps."""
    only: tuple[str, ...] = ()
    """Kinds of steps, or steps by name (default: all)."""
    cluster: Literal["slurm"] | None = None
    """Work by jobs of a cluster: steps as jobs that wait for each other, instead of here in order (needs submitit)."""
    job_options: tuple[str, ...] = ()
    """submitit's parameters of the jobs as name=value: except for GPUs, which are the step's."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds of the trainings: the miniature has the first."""
    keep_checkpoints: Natural | None = None
    """Keep a checkpoint after every so many epochs (default: every one of CLIP, as in the study)."""
    disk: float | None = None
    """GiB that may be filled (default: the free space)."""
    hours: float | None = None
    """Available GPU hours (default: no limit)."""
    half_tflops: float = 94.0
    """10^12 operations per second of a GPU in mixed precision; assumed: 30 % of an A100's 312."""
    single_tflops: float = 7.8
    """The same in single precision; assumed: 40 % of an A100's 19.5."""


def main(config: Config) -> None:
    """Make the plan, check disk and GPU hours, print it or do it."""
    if config.miniature:
        config = drawn(config)
    plan = Plan(config.out.absolute(), steps(config), CHECKOUT)
    chosen = plan.chosen(config.only)
    if config.plan or not config.do:
        print_plan(chosen)
    try:
        plan.check_room(config.only, disk_gib=config.disk, hours=config.hours)
    except InputError as error:
        if config.do:
            raise
        log.warning("%s", error)
    if not config.do:
        print("add --do to do the steps, --only to choose some")
    elif config.cluster is not None:
        jobs = plan.submit(config.only, job_options(config.job_options))
        print(
            "".join(f"{name}: job {number}\n" for name, number in jobs.items())
            or "all steps are done"
        )
    else:
        plan.run(config.only)
        print(f"all of {len(chosen)} steps are done: {config.out / 'figures'}")


def drawn(config: Config) -> Config:
    """Draw the miniature's images, and a table of more photographs as its base set."""
    settings = DrawingSettings(config.n_train, config.n_train)
    root = write_toy(config.out / "toy", settings, progress=False)
    photos = write_toy(
        config.out / PHOTOS, replace(settings, seed=1, styles=("real",)), progress=False
    )
    table = config.out / f"{PHOTOS}.tsv"
    images = DomainFolder(photos, split="train").records
    rows = [
        (record.path.absolute(), f"a photo of a {record.class_name}.")
        for record in images
    ]
    with whole_file(table) as temporary:
        pd.DataFrame(rows, columns=["filepath", "title"]).to_csv(
            temporary, sep="\t", index=False, lineterminator="\n"
        )
    return replace(
        config, data=root, base=(f"{PHOTOS}={table}",), seeds=config.seeds[:1]
    )


def steps(config: Config) -> list[Step]:
    """Return all steps of the study on this material."""
    assert config.data is not None  # or the miniature draws it
    domainnet, small = config.data.absolute(), config.miniature
    images = DomainFolder(domainnet, split="train", missing_files="unchecked")
    given = named_base_sets(config.base, config.base_images, config.base_validation)
    bases = {
        name: replace(
            base,
            path=base.path.absolute(),
            images=base.images and base.images.absolute(),
        )
        for name, base in given.items()
    }
    if not small:
        chosen_names("base set of the study", tuple(bases), KNOWN_BASES)
    main_base = MAIN if MAIN in bases else None
    named = [name for name in bases if name != MAIN]
    mixtures = study_mixtures(
        [main_base, *named] if main_base or small or not named else named,
        held_out=TOY_CLASSES[1::4] if small else study_held_out(images.all_classes),
        domains=images.domains,
        sketches=config.imagenet_sketch is not None,
        test_domains=("quickdraw", "sketch") if small else None,
    )
    trained = [
        one for one in mixtures if not small or one.settings.name in MINIATURE_MIXTURES
    ]
    scale = MINIATURE if small else STUDY
    trainings = study_trainings(trained, main_base, scale.models, config.seeds)
    material = Material(
        domainnet,
        mixtures[0].settings.held_out_classes,
        Counter((record.domain, record.class_name) for record in images.records),
        len(DomainFolder(domainnet, split="test", missing_files="unchecked")),
        bases,
        {
            name: sum(1 for _ in base.part("train", STUDY_SEED))
            for name, base in bases.items()
        },
        dict(absolute(text) for text in config.base_validation),
        main_base,
        config.imagenet_sketch and config.imagenet_sketch.absolute(),
        config.imagenet and config.imagenet.absolute(),
        config.missing_captions,
    )
    counted = circuit_operations(str(clip_preset(scale.preset(trainings[0])).model))
    rates = config.half_tflops * 1e12, config.single_tflops * 1e12
    out = config.out.absolute()
    return study_steps(
        StudyPlace(
            out, scale, material, trainings, *rates, counted, config.keep_checkpoints
        )
    )


def circuit_operations(model: str) -> float:
    """Return the operations of the study's circuits for one image: unit scores, and edge scores twice."""
    tower = open_clip.create_model(
        register_model(model), pretrained_text=False, require_pretrained=False
    ).visual
    encoder = Encoder.from_tower(tower.eval().requires_grad_(False))
    metric = class_logit(torch.eye(2, count_model(model).embedding), 0)
    asked = (
        AttributionSettings(0.1, "same-share", left_rule(n), method="site-path")
        for n in (1, 2)
    )
    counts = (count_operations(encoder, metric, one) for one in asked)
    few, more = (count.nodes + 2 * count.edges for count in counts)
    return float(few + (POINTS - 1) * (more - few))


def absolute(text: str) -> tuple[str, str]:
    """Return name and value of NAME=VALUE; paths become absolute, since commands run elsewhere."""
    name, _, value = text.partition("=")
    return name, f"{Path(value).absolute()}" if Path(value).exists() else value


def print_plan(chosen: list[Step]) -> None:
    """Print every step with its cost and command, and the cost of each kind."""
    for step in chosen:
        print(f"{step.name}: {step.cost}\n    {shlex.join(step.command)}")
    print(f"\n{len(chosen)} steps")
    for kind in [*dict.fromkeys(step.kind for step in chosen), "in all"]:
        costs = [step.cost for step in chosen if kind in (step.kind, "in all")]
        print(f"{kind} ({len(costs)}): {sum(costs, Cost())}")
