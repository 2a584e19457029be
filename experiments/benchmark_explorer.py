"""How long does the explorer of a study of RN50's size take to open, and to answer the reader?

Takes random circuits of 60 classes in 6 domains (1,644 units and 4,920 edges each, on all images and on two parts),
makes up cards of 10,000 units with 20,000 thumbnails, exports the explorer, and opens it from disk in a headless
Chromium. Too slow is: more than 2 s until the first circuit is drawn, 100 ms for another class or a step of a slider,
16 ms for a hover; too large more than 64 MiB.

    python experiments/benchmark_similarity.py --classes 60 --parts 2    # writes the circuits, 1.8 GiB
    python experiments/benchmark_explorer.py
"""

import io
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from statistics import median
from typing import Any
from urllib.parse import quote

from circuitry.runs import InputError, run_script
from circuitry import GraphFolder
from circuitry.cards import CardFolder, CardImage, TopImages, UnitCard, UnitName, WordCheck
from circuitry.cards.card_folder import ActivationTable
from circuitry.explorer import ExplorerSettings, export_explorer
from circuitry.interventions import FaithfulnessCurve
from circuitry.reports.result_tables import KeepSettings

import numpy as np
import pandas as pd
from PIL import Image

CIRCUITS = Path("runs/benchmark-similarity/60-classes-2-parts")
BROWSERS = ("/usr/bin/chromium", "/usr/bin/google-chrome")
SWITCHES = "no-sandbox disable-gpu no-first-run disable-background-networking disable-component-update disable-sync"
TOP, BINS, GRID = 3, 20, 7
HELD_OUT = 3
DRAWN = "new Promise(done => requestAnimationFrame(() => setTimeout(done)))"
"""Fulfilled when the next frame was painted."""


@dataclass(frozen=True)
class Config(KeepSettings):
    """Settings of the benchmark."""

    circuits: Path = CIRCUITS
    """Circuits of benchmark_similarity.py."""
    out: Path = Path("runs/benchmark-explorer")
    """Folder of the explorer."""
    units: int = 10_000
    """Units with cards."""
    images: int = 20_000
    """Images of the cards."""
    repeats: int = 9
    """Times that every step is measured; the median and the least are reported."""
    seed: int = 0
    """Seed of the cards."""


class RandomCards(CardFolder):
    """Cards that were made up."""

    def __init__(self, graphs: GraphFolder, config: Config) -> None:
        self.graphs, self.config = graphs, config
        self.classes, self.domains = graphs.classes, graphs.domains
        self.manifest = {"config": {"circuits": graphs.manifest["config_hash"]}}
        self.rng = np.random.default_rng(config.seed)
        self.words = WordCheck("random", 0.5, {}, 1 / len(self.classes), config.images, True)
        first = graphs[next(iter(graphs))]
        sizes = {site: len(first.node_scores[site]) for site in first.inner_sites}
        share = min(1.0, config.units / sum(sizes.values()))
        self._units = {site: list(range(round(share * size))) for site, size in sizes.items()}
        self.sites = tuple(self._units)

    @cached_property
    def images(self) -> dict[str, CardImage]:
        keys = [(c, d) for c in self.classes for d in self.domains]
        found = {}
        for i in range(self.config.images):
            name, domain = keys[i % len(keys)]
            found[f"{i:016x}"] = CardImage(f"{i:016x}", f"{domain}/{name}/{i}.png", domain, name, i < len(keys))
        return found

    @cached_property
    def by_domain(self) -> dict[str, np.ndarray]:
        names = {domain: [i.id for i in self.images.values() if i.domain == domain] for domain in self.domains}
        return {domain: np.array(some) for domain, some in names.items()}

    def thumbnail(self, image_id: str) -> bytes:
        return thumbnails()[int(image_id, 16) % len(thumbnails())]

    def activations(self, domain: str) -> ActivationTable:
        ids = tuple(self.by_domain[domain][:1000])
        return ids, self.rng.random((len(ids), len(self.units())), np.float32)

    def card(self, site: str, unit: int) -> UnitCard:
        shape, rng = (len(self.classes), len(self.domains)), self.rng
        kept = rng.random(shape) < 0.1
        effects = rng.normal(size=shape)
        exact = {name: np.where(kept, rng.normal(size=shape), np.nan) for name in ("zero", "mean", "other-domains")}
        top = {by: {domain: self._top(domain) for domain in self.domains} for by in ("activation", "effect")}
        counts = rng.integers(0, 500, (len(self.domains), BINS))
        clarity, edges = rng.random(len(self.domains)), np.linspace(0, 1, BINS + 1)
        by_domain = dict.fromkeys(self.domains, (0.1, 0.1))
        references = {"class": ("axe", 0.1), "domain": ("real", 0.1), "random word": ("spoon", 0.1)}
        name = UnitName(
            ("stripes", f"thing {unit}"), (1.0, 0.5), 0.4, 0.3, by_domain, "dots", 0.2, 0.1, False, references
        )
        return UnitCard(
            site=site,
            unit=unit,
            kind="channel",
            classes=self.classes,
            domains=self.domains,
            top=top,
            heat_scale=1.0,
            bin_edges=edges,
            counts=counts,
            effects=effects,
            kept=kept,
            exact=exact,
            attributed_like="zero",
            clarity=clarity,
            name=name,
        )

    def _top(self, domain: str) -> TopImages:
        chosen = self.by_domain[domain][self.rng.integers(0, len(self.by_domain[domain]), TOP)]
        heat = np.maximum(self.rng.normal(0, 90, (TOP, GRID, GRID)), 0).clip(0, 255).astype(np.uint8)
        return TopImages(tuple(map(str, chosen)), self.rng.random(TOP), heat)


@cache
def thumbnails() -> list[bytes]:
    """Return pictures of about 1 KiB, as real ones are."""
    rng, found = np.random.default_rng(0), []
    for _ in range(100):
        picture = Image.fromarray(rng.integers(0, 255, (7, 7, 3), np.uint8)).resize((96, 96), Image.Resampling.BICUBIC)
        content = io.BytesIO()
        picture.save(content, "WEBP", quality=70)
        found.append(content.getvalue())
    return found


def random_curve(class_name: str, domain: str, sites: list[str], rng: np.random.Generator) -> FaithfulnessCurve:
    """Return a curve of 10 sizes on 6 images of the class and 12 of others."""
    own = np.arange(18) < 6
    settings = {"sites": sites, "baseline": "zero", "seed": 0, "keep_error": False}
    fractions = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
    kept, complement, random = (rng.random(shape) for shape in ((10, 18), (10, 18), (5, 10, 18)))
    sides: dict[str, Any] = {"full": own + rng.random(18) / 9, "empty": np.zeros(18), "own": own}
    arrays: dict[str, Any] = {"kept": kept, "complement": complement, "random": random, "group": np.zeros(18, np.int64)}
    named: dict[str, Any] = {"class_name": class_name, "domain": domain, "settings": settings}
    return FaithfulnessCurve(fractions=fractions, ranking="absolute", n_units=(1,) * 10, **sides, **arrays, **named)


def main(config: Config) -> None:
    """Export, open, measure; print the sizes and times."""
    if not config.circuits.is_dir():
        raise InputError(
            f"There are no circuits at {config.circuits}: write them with "
            "python experiments/benchmark_similarity.py --classes 60 --parts 2."
        )
    graphs, rng = GraphFolder(config.circuits), np.random.default_rng(config.seed)
    sites = list(graphs[next(iter(graphs))].inner_sites)
    curves = [random_curve(*key, sites, rng) for key in graphs]
    started = time.perf_counter()
    cards = RandomCards(graphs, config)
    exported = export_explorer(
        graphs,
        config.out,
        curves=curves,
        cards=cards,
        settings=ExplorerSettings(images_per_list=TOP, held_out_images=HELD_OUT),
    )
    seconds = time.perf_counter() - started
    sizes = pd.DataFrame([{"kind": kind, "MiB": size / 2**20} for kind, size in exported.n_bytes.items()])
    total = {"kind": "all", "MiB": sizes["MiB"].sum()}
    export = pd.DataFrame([{"step": "export", "median ms": 1000 * seconds, "least ms": 1000 * seconds}])
    steps = pd.concat([measure(exported.page, graphs, config), export], ignore_index=True)
    config.keep({"sizes": pd.concat([sizes, pd.DataFrame([total])], ignore_index=True), "steps": steps})


def measure(page: Path, graphs: GraphFolder, config: Config) -> pd.DataFrame:
    """Return milliseconds by step: median and least over the repeats."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError as error:
        raise InputError("The benchmark drives a browser by playwright: pip install playwright.") from error
    browser_file = next((name for name in BROWSERS if Path(name).is_file()), None)
    if browser_file is None:
        raise InputError(
            f"The benchmark needs a browser, but none of {', '.join(BROWSERS)} is there: install chromium."
        )
    times: dict[str, list[float]] = {}
    with sync_playwright() as started:
        switches = ["--headless", *(f"--{name}" for name in SWITCHES.split())]
        browser = started.chromium.launch(executable_path=browser_file, args=switches)
        for _ in range(config.repeats):
            tab = browser.new_page(viewport={"width": 1280, "height": 800})
            begun = time.perf_counter()
            tab.goto(page.resolve().as_uri(), wait_until="commit")
            tab.wait_for_selector(".page[data-loaded]")
            tab.evaluate(DRAWN)
            times.setdefault("opening", []).append(1000 * (time.perf_counter() - begun))
            for name, step in steps_of(tab, graphs).items():
                times.setdefault(name, []).extend(step())
            tab.close()
        browser.close()
    rows = [{"step": name, "median ms": median(found), "least ms": min(found)} for name, found in times.items()]
    return pd.DataFrame(rows)


TIMED = """async act => {
    const begun = performance.now();
    act();
    await new Promise(done => requestAnimationFrame(() => setTimeout(done)));
    return performance.now() - begun;
}"""


def steps_of(tab: Any, graphs: GraphFolder) -> dict[str, Callable[[], list[float]]]:
    """Return what a reader does, by name: each returns its milliseconds."""

    def timed(action: str) -> float:
        return float(tab.evaluate(f"({TIMED})(() => {{ {action} }})"))

    def change_class() -> list[float]:
        found = []
        for name in graphs.classes[1:3]:
            wait = f"document.querySelector('.page[data-loaded={name}]')"
            code = f"""(async () => {{
                const begun = performance.now(), select = document.getElementById("class");
                select.value = {name!r};
                select.dispatchEvent(new Event("change", {{bubbles: true}}));
                while (!{wait}) await new Promise(done => setTimeout(done));
                await {DRAWN};
                return performance.now() - begun;
            }})()"""
            found.append(float(tab.evaluate(code)))
        return found

    def slide(name: str, values: tuple[int, ...]) -> Callable[[], list[float]]:
        def step(value: int) -> float:
            event = "new Event('input', {bubbles: true})"
            found = f"const s = document.getElementById('{name}'); s.value = {value}; s.dispatchEvent({event});"
            return timed(found)

        return lambda: [step(value) for value in values]

    def hover() -> list[float]:
        box = tab.locator(".graph").bounding_box()
        tab.wait_for_timeout(400)  # the strongest edges are drawn first, all of them when the reader rests
        found = []
        for share in (0.3, 0.45, 0.6, 0.75):
            place = {"clientX": box["x"] + box["width"] * share, "clientY": box["y"] + box["height"] / 2}
            event = f"new PointerEvent('pointermove', {json.dumps(place | {'bubbles': True})})"
            move = f"document.querySelector('.graph').dispatchEvent({event})"
            code = f"(() => {{ const begun = performance.now(); {move}; return performance.now() - begun; }})()"
            found.append(float(tab.evaluate(code)))
        return found

    def card() -> list[float]:
        address = "#" + quote(json.dumps({"selected": "layer3.0/0"}))
        code = f"""(async () => {{
            const begun = performance.now();
            location.hash = {address!r};
            while (!document.querySelector(".top img")) await new Promise(done => setTimeout(done));
            await {DRAWN};
            return performance.now() - begun;
        }})()"""
        return [float(tab.evaluate(code))]

    return {
        "another class": change_class,
        "a step of the units slider": slide("share", (20, 16, 24)),
        "a step of the edges slider": slide("edges", (2, 1, 3)),
        "a hover": hover,
        "a card, with its site's file": card,
    }


if __name__ == "__main__":
    run_script(Config, main, __doc__)
