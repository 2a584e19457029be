"""What does each unit of the circuits respond to, in every domain, and what does it do?

For every unit (channel, head, neuron, latent) that any circuit of a folder keeps:

1. the images of each domain that activate it most, with its activation as a heat map, and those in which it contributes
   most to the image's class;
2. histograms of its activation by domain; its effect by class and domain; the exact effect of putting it to zero, to
   its mean, and to its value in other domains, beside the attributed one;
3. a name of at most three words, fitted on one half of the images and tested on the other.

A name is refuted by a correlation no better than that of names of permuted cells: it is weak.
Where the model classifies the images no better than chance, its words name nothing, and the summary says so.

    circuitry cards      # the own parts of the quickstart
    circuitry cards --circuits runs/domainnet/circuits
    torchrun --nproc-per-node 6 -m circuitry cards --device cuda ...    # a domain for each process
"""

import shlex
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from circuitry import analysis
from circuitry.analysis import QuickstartModel
from circuitry.cards import CardSettings
from circuitry.runs import Work, WorkSettings

if TYPE_CHECKING:
    from circuitry.cards import CardFolder


@dataclass(frozen=True, kw_only=True)
class Config(CardSettings, WorkSettings, QuickstartModel):
    """Settings; the defaults are the quickstart's model, images and circuits."""

    circuits: Path = Path("runs/quickstart/own-parts/circuits")
    """Folder of circuits or own parts that the quickstart, circuitry find, own-parts or compare left; model and images
    are those of that run, unless a model or images are given."""
    out: Path | None = None
    """Folder of the results: the cards (default: cards beside the circuits)."""

    @property
    def folder(self) -> Path:
        """Where the cards go."""
        return self.out or self.circuits.parent / "cards"


def main(config: Config) -> None:
    """Make the cards, and say how many names are better than chance."""
    # Of several processes one goes on here; the others only make their share.
    if config.share_out(partial(make, config), config.folder / "jobs"):
        summarise(make(config, config.work()), config.circuits)


def make(config: Config, work: Work) -> "CardFolder":
    """Do one process's share of the cards."""
    clip = config.clip(work.rank, components=True)
    # The command line has more fields than cards have.
    asked: dict[str, Any] = {}
    for field in fields(CardSettings):
        asked[field.name] = getattr(config, field.name)
    # A small model knows the words of its captions alone; another word would fit by chance.
    if config.vocabulary is None:
        asked["vocabulary"] = config.known_words
    run = analysis.Analysis(
        clip, config.images(), config.circuits.parent, circuits=config.circuits
    )
    return run.cards(work, config.folder, **asked)


def summarise(cards: "CardFolder", circuits: Path) -> None:
    """Print how well the names do, and the best named units."""
    units = [cards.card(*unit) for unit in cards.units()]
    named = [card for card in units if card.name is not None]
    strong = [(card, card.name) for card in named if card.name and not card.name.weak]
    n_of_style = sum(name.style for _, name in strong)
    # A name that fits no better than the best class or domain says nothing that the labels do not say.
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
