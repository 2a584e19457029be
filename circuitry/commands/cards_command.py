"""What does each unit of the circuits respond to, in every domain, and what does it do?

This makes a card for every unit (channel, head, neuron or latent) that a circuit of the folder keeps. The card shows:

1. the images of each domain that activate the unit most, with heat maps of the activation, and the images where the
   unit contributes most to the class of the image;
2. histograms of the unit's activation by domain, and the unit's effect by class and domain, computed by attribution.
   Some cards also show the exact effect: the activation of the unit is replaced by zero, by its mean, or by its mean in
   other domains;
3. a name of at most three words, which is fitted on one half of the images and tested on the other half.

A name is called weak if it predicts the unit's activation no better than chance. The chance level is what names reach
that are fitted to shuffled data: the images of each class and domain are exchanged with the images of another class and
domain. Names are chosen by the model's text embeddings. If the model classifies the images by text no better than
chance, names of units must not be trusted. The summary then says so.

    circuitry cards      # the own parts of the quickstart
    circuitry cards --circuits runs/domainnet/circuits
    torchrun --nproc-per-node 6 -m circuitry cards --device cuda ...    # a domain for each process
"""

import shlex
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from circuitry import analysis, cards, circuits, models
from circuitry.analysis import QuickstartModel
from circuitry.cards import CardSettings
from circuitry.runs import Plan, PlanSettings, Work, WorkSettings

if TYPE_CHECKING:
    from circuitry.cards import CardFolder


@dataclass(frozen=True, kw_only=True)
class Config(CardSettings, WorkSettings, PlanSettings, QuickstartModel):
    """Settings of the cards. The defaults are the model, images and own parts of the quickstart."""

    circuits: Path = Path("runs/quickstart/own-parts/circuits")
    """Folder of circuits or own parts that the quickstart, circuitry find, own-parts or compare wrote. The model and
    images of that run are used, unless a model or images are given."""
    out: Path | None = None
    """Folder of the results: the cards (default: the folder cards beside the circuits)."""

    @property
    def folder(self) -> Path:
        """Folder of the cards."""
        return self.out or self.circuits.parent / "cards"


def main(config: Config) -> None:
    """Make the cards, and print how many names are better than chance."""
    # If several processes share the work, only one of them goes on here.
    if config.share_out(partial(make, config), config.folder / "jobs"):
        summarise(make(config, config.work()), config.circuits)


def make(config: Config, work: Work) -> "CardFolder":
    """Make one process's share of the cards, and return the folder of all cards.

    Cards that are finished are not made again.
    """
    clip = config.clip(work.rank, components=True)
    run = analysis.Analysis(
        clip, config.images(), config.circuits.parent, circuits=config.circuits
    )
    return run.cards(work, config.folder, **settings_of_cards(config))


def plan(config: Config) -> Plan:
    """Return what the cards that are left need."""
    work = config.work()
    clip = config.clip(components=True)
    jobs = cards.CardJobs(
        clip,
        config.images(),
        circuits.GraphFolder(config.circuits),
        config.folder,
        CardSettings(**settings_of_cards(config)),
        work,
    )
    return Plan(jobs.steps(), models.tower_speed(clip, config.images().records, work))


def settings_of_cards(config: Config) -> dict[str, Any]:
    """Return the fields of `CardSettings`."""
    # The settings of the command have more fields than the settings of cards.
    asked: dict[str, Any] = {}
    for field in fields(CardSettings):
        asked[field.name] = getattr(config, field.name)
    # A small model knows only the words of its captions. Other words would fit by chance.
    if config.vocabulary is None:
        asked["vocabulary"] = config.known_words
    return asked


def summarise(cards: "CardFolder", circuits: Path) -> None:
    """Print how many units have a name that is better than chance, and the units with the best names."""
    units = [cards.card(*unit) for unit in cards.units()]
    named = [card for card in units if card.name is not None]
    strong = [(card, card.name) for card in named if card.name and not card.name.weak]
    n_of_style = sum(name.style for _, name in strong)
    # A name that fits no better than the best label of a class or domain adds nothing to this label.
    n_above_labels = 0
    for _, name in strong:
        best_label = max(name.references[kind][1] for kind in ("class", "domain"))
        n_above_labels += name.correlation > best_label
    print(cards.words.sentence)
    print(
        f"{len(units)} units, {len(named)} with a name, {len(strong)} better than chance, {n_above_labels} better than "
        f"the best class or domain label, {n_of_style} of a style."
    )
    strong.sort(key=lambda named: -named[1].correlation)
    for card, name in strong[:10]:
        print(
            f"{card.title}: {name.name} (correlation {name.correlation:.2f}, by chance {name.chance:.2f})"
        )
    print(
        f"cards: {cards.path}; to look at them: circuitry explore --circuits {shlex.quote(str(circuits))} --open"
    )
