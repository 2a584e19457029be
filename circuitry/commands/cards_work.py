"""Make the cards of a folder of circuits."""

from dataclasses import fields
from functools import partial

import numpy as np

from circuitry.analysis import Analysis
from circuitry.cards import CardFolder, CardSettings, UnitCard, UnitName
from circuitry.commands.cards_command import Config
from circuitry.runs import Work


def main(config: Config) -> None:
    """Make the cards, and say how many names are better than chance."""
    if config.share_out(partial(make, config), config.folder / "jobs"):
        summarise(make(config, config.work()))


def make(config: Config, work: Work) -> CardFolder:
    """Do one process's share of the cards."""
    clip = config.clip(work.rank, parts=True)
    asked = {field.name: getattr(config, field.name) for field in fields(CardSettings)}
    if config.vocabulary is None:
        asked["vocabulary"] = config.known_words
    run = Analysis(clip, config.images(), config.circuits.parent, circuits=config.circuits)
    return run.cards(work, config.folder, **asked)


def summarise(cards: CardFolder) -> None:
    """Print how well the names do, and the best named units."""
    found = [cards.card(*unit) for unit in cards.units()]
    print(cards.words.sentence)
    named = [(card, card.name) for card in found if card.name is not None]
    strong = [(card, name) for card, name in named if not name.weak]
    styles = sum(name.style for _, name in strong)
    labels = sum(name.correlation > max(name.references[kind][1] for kind in ("class", "domain")) for _, name in strong)
    print(
        f"{len(found)} units, {len(named)} with a name, {len(strong)} better than chance, {labels} better than the "
        f"best class or domain label, {styles} of a style."
    )
    for card, name in sorted(strong, key=lambda one: -one[1].correlation)[:10]:
        print(in_words(card, name))
    print(f"cards: {cards.path}")


def in_words(card: UnitCard, name: UnitName) -> str:
    """Say what a unit responds to, where, and how sure that is."""
    by_domain = ", ".join(f"{domain} {value:.2f}" for domain, (value, _) in name.by_domain.items())
    differs = sum(int(there.sum()) for there in card.sign_differs.values())
    measured = sum(int(np.isfinite(exact).sum()) for exact in card.exact.values())
    references = ", ".join(f"{kind} {label} {value:.2f}" for kind, (label, value) in name.references.items())
    return (
        f"{card.title}: {name.name}, correlation {name.correlation:.2f} ({by_domain}; chance {name.chance:.2f}; "
        f"runner-up {name.runner_up} {name.runner_up_correlation:.2f}; {references}); circuits: "
        f"{int(card.kept.sum())}; the sign of {differs} of {measured} exact effects differs from the attributed one's."
    )
