"""Which units of my model recognise a class, and do they work?

This finds the circuit of one class in one domain. The images may be a data set, or a plain folder with images of one
class. The circuit is found on one half of the class's images, and tested on the other half. The tests ask whether the
class is recognised if the model keeps only the circuit, only equally many random units, only the circuit of another
class, or all units except the circuit. The command prints the answer, and writes a report with a drawing of the
circuit. A second run with the same settings goes on where the first run stopped.

    circuitry find --model ViT-B-32 --pretrained openai --data pictures --domain photo --class cat
    circuitry find --model rn-tiny --checkpoint epoch_16.pt --data DomainNet --class axe --domain real --selectivity 0.8
    circuitry find --model ViT-B-32 --pretrained openai --units components --data DomainNet --class axe --domain real
"""

import shlex
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from circuitry import data, models, questions, reports
from circuitry.data import chosen_names
from circuitry.models import ModelOptions
from circuitry.questions import OneClassSettings
from circuitry.runs import InputError, Plan, PlanSettings, versions

if TYPE_CHECKING:
    from circuitry.data import DomainFolder
    from circuitry.questions import OneClass, OneClassAnswer
    from circuitry.reports import Written


@dataclass(frozen=True, kw_only=True)
class Config(OneClassSettings, PlanSettings, ModelOptions):
    """Settings of the search."""

    class_name: Annotated[str, tyro.conf.arg(name="class")]
    """The class whose circuit is to be found."""
    domain: str | None = None
    """The domain of the images; not needed if the images have only one domain."""
    out: Path | None = None
    """Folder of the results: the report, the tables and the circuit (default: runs/find/CLASS, or
    runs/find/CLASS-DOMAIN with --domain)."""

    @property
    def folder(self) -> Path:
        """Folder of the results."""
        if self.out is not None:
            return self.out
        if self.domain is None:
            return Path("runs/find", self.class_name)
        return Path("runs/find", f"{self.class_name}-{self.domain}")


def main(config: Config) -> "Written":
    """Find and test the circuit, print the answer, and write the report."""
    run = question_of(config)
    answer = run.run()
    # The table is empty if the model does no better than the baseline. The report gives the reasons.
    recovered = answer.tables()["recovered"]
    if len(recovered):
        print(recovered.to_string(index=False))
    # Cards can be made only if there are images of other classes.
    if run.others():
        folder = shlex.quote(str(config.folder / "circuits"))
        print(
            f"To look inside: circuitry cards --circuits {folder} && circuitry explore --circuits {folder} --open"
        )
    return write_report(config, run, answer)


def plan(config: Config) -> Plan:
    """Return what the steps that are left need."""
    run = question_of(config)
    return Plan(run.steps(), models.tower_speed(run.clip, run.images.records))


def question_of(config: Config) -> "OneClass":
    """Return the `OneClass` for the model, class and domain of the settings: it finds the circuit and tests it.

    If --data is a plain folder of pictures, all pictures in it are images of the class.
    """
    if questions.pictures_in(config.data):
        # Baselines that are computed from the data need images of other classes. Only the baseline zero needs none.
        if config.baseline not in (None, "zero"):
            raise InputError(
                f"The baseline {config.baseline} takes images of other classes: {config.data} has none."
            )
        config = replace(config, baseline="zero")
        key = (config.class_name, config.domain or config.data.resolve().name)
        # A dictionary keeps each class once, in the order that was given.
        classes = dict.fromkeys((*(config.classes or ()), config.class_name))
        images = questions.pictures_of_a_class(
            config.data, key, list(classes), config.fitted_on
        )
    else:
        images = config.images()
        key = key_of(config, images)
    # The images are checked before the model is loaded, which takes a while.
    data.Split(images, config.n_images, config.seed).check_testable(key)
    clip = config.clip(components=True)
    return questions.OneClass(clip, images, config.folder, key, config)


def key_of(config: Config, images: "DomainFolder") -> tuple[str, str]:
    """Return the class and the domain, in the spelling of the folder.

    Raises:
        InputError: if a name is unknown, or if no domain is named and the images have several domains.
    """
    classes, domains = images.all_classes, images.domains
    (class_name,) = chosen_names("class", (config.class_name,), classes)
    if config.domain is None and len(domains) > 1:
        raise InputError(
            f"A circuit is found in one domain, but {config.data} has {', '.join(domains)}: choose one with --domain."
        )
    (domain,) = chosen_names("domain", (config.domain or domains[0],), domains)
    return class_name, domain


def write_report(
    config: Config, run: "OneClass", answer: "OneClassAnswer"
) -> "Written":
    """Write the report, the tables and the circuit."""
    circuit = answer.circuit
    n_kept = sum(map(len, circuit.units.values()))
    n_units = sum(map(len, circuit.source.node_scores.values()))
    report = reports.Report(
        f"Which units of {config.model} recognise {circuit.source.title}?",
        f"The circuit keeps {n_kept} of {n_units} units (method: {config.method}). "
        f"{circuit.made_with.get('note', '')}\n\n"
        f"Images of the class that it was found on: {len(run.found_on)}; that it was tested on: {len(run.unseen)}. "
        f"{run.in_words}",
    )
    answer.add_to(report)
    run.add_images(report)
    provenance = {"model": config.model, **circuit.source.settings, **versions()}
    return reports.write_results(
        report,
        answer.tables(),
        config.folder,
        None,
        provenance,
        listings=reports.listings_of_records(chain(*run.looked_at.values())),
    )
