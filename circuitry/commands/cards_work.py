"""Make the cards of a folder of circuits."""

import shlex
from dataclasses import fields
from functools import partial
from pathlib import Path

from circuitry.analysis import Analysis
from circuitry.cards import CardFolder, CardSettings
from circuitry.commands.cards_command import Config
from circuitry.runs import Work


def main(config: Config) -> None:
    """Make the cards, and say how many names are better than chance."""
    if config.share_out(partial(make, config), config.folder / "jobs"):
        summarise(make(config, config.work()), config.circuits)


def make(config: Config, work: Work) -> CardFolder:
    """Do one process's share of the cards."""
    clip = config.clip(work.rank, parts=True)
    asked = {field.name: getattr(config, field.name) for field in fields(CardSettings)}
    if config.vocabulary is None:
        asked["vocabulary"] = config.known_words
    run = Analysis(
        clip, config.images(), config.circuits.parent, circuits=config.circuits
    )
    return run.cards(work, config.folder, **asked)


def summarise(cards: CardFolder, circuits: Path) -> None:
    """Print how well the names do, and the best named units."""
    found = [cards.card(*unit) for unit in cards.units()]
    print(cards.words.sentence)
    named = [(card, card.name) for card in found if card.name is not None]
    strong = [(card, name) for card, name in named if not name.weak]
    styles = sum(name.style for _, name in strong)
    labels = sum(
        name.correlation > max(name.references[kind][1] for kind in ("class", "domain"))
        for _, name in strong
    )
    print(
        f"{len(found)} units, {len(named)} with a name, {len(strong)} better than chance, {labels} better than the "
        f"best class or domain label, {styles} of a style."
    )
    for card, name in sorted(strong, key=lambda one: -one[1].correlation)[:10]:
        print(
            f"{card.title}: {name.name} (correlation {name.correlation:.2f}, by chance {name.chance:.2f})"
        )
    print(
        f"cards: {cards.path}; to look at them: circuitry explore --circuits {shlex.quote(str(circuits))} --open"
    )
