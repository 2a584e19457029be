"""Training distributions: which images of which domains and classes a CLIP model is trained on (method.md section 8).

1. ``admitted``: the setting and its test domain T say which (domain, class) combinations take part.
2. ``subsample``: the shape is kept while the number of images shrinks to N, the reference size: that of CG
   low-diversity.
3. ``write_mixture``: images with captions become the TSV that open_clip's trainer reads, and a table of
   counts beside it.

======================  =========================================  ===================
setting                 images                                     number
======================  =========================================  ===================
``natural-only``        natural domain                             all
``cg-low``              natural domain, T without held-out         all (this is N)
``cg-high``             all domains, T without held-out            subsampled to N
``leave-out``           all domains but T                          subsampled to N
======================  =========================================  ===================
"""

import csv
import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import pandas as pd

from circuitry.data.domains import ImageRecord
from circuitry.errors import InputError
from circuitry.files import whole_file

Setting = Literal["natural-only", "cg-low", "cg-high", "leave-out"]

DOMAINNET_ROUND = ("real", "quickdraw", "painting", "sketch", "infograph", "clipart")
"""The order in which the study goes round DomainNet's domains."""


@dataclass(frozen=True)
class MixtureSettings:
    """One training distribution."""

    setting: Setting
    test_domain: str
    """T, the domain that generalization is tested on."""
    held_out_classes: tuple[str, ...] = ()
    """Classes that are never seen in T (but in the other domains)."""
    size: int | None = None
    """N of the subsampled settings, in images; None: the size of ``cg-low`` with the same T and held-out classes."""
    natural_domain: str = "real"

    def __post_init__(self) -> None:
        if self.setting not in get_args(Setting):
            raise InputError(f"unknown setting {self.setting!r}; expected one of {', '.join(get_args(Setting))}")
        if self.test_domain == self.natural_domain:
            raise InputError(
                f"the test domain must differ from the natural domain; both are {self.test_domain!r} "
                f"(natural_domain= names the domain of photographs)"
            )
        if self.setting.startswith("cg-") and not self.held_out_classes:
            raise InputError(
                f"setting {self.setting!r} holds classes out of the test domain; held_out_classes is empty"
            )
        if self.size is not None and self.size < 1:
            raise InputError(f"size must be at least 1 image, or None for the reference size; given {self.size}")


def mixture(train: Sequence[ImageRecord], settings: MixtureSettings) -> list[ImageRecord]:
    """Choose the training images of a setting, in their order in ``train``; nothing about it is random.

    Raises:
        InputError: a domain or class that ``train`` lacks; fewer images than the size to subsample to.

    Example:
        >>> train = DomainFolder("DomainNet", split="train").records
        >>> chosen = mixture(train, MixtureSettings("cg-high", "quickdraw", ("axe", "lion")))
    """
    chosen = admitted(train, settings)
    if settings.setting in ("natural-only", "cg-low"):
        return chosen
    return subsample(chosen, _reference_size(train, settings) if settings.size is None else settings.size)


def admitted(samples: Sequence[ImageRecord], settings: MixtureSettings) -> list[ImageRecord]:
    """Keep the images whose (domain, class) takes part in a setting: what validation lists need, and all of step 1."""
    _check_names("domain", (settings.test_domain, settings.natural_domain), {s.domain for s in samples})
    _check_names("held-out class", settings.held_out_classes, {s.class_name for s in samples})
    return [sample for sample in samples if _takes_part(sample, settings)]


def _takes_part(sample: ImageRecord, settings: MixtureSettings) -> bool:
    natural = sample.domain == settings.natural_domain
    test = sample.domain == settings.test_domain
    seen = sample.class_name not in settings.held_out_classes
    match settings.setting:
        case "natural-only":
            return natural
        case "cg-low":
            return natural or (test and seen)
        case "cg-high":
            return not test or seen
        case "leave-out":
            return not test


def _reference_size(train: Sequence[ImageRecord], settings: MixtureSettings) -> int:
    if not settings.held_out_classes:
        raise InputError(
            f"the size of setting {settings.setting!r} is that of 'cg-low', which needs held_out_classes; "
            f"give those or size="
        )
    low = MixtureSettings(
        "cg-low", settings.test_domain, settings.held_out_classes, natural_domain=settings.natural_domain
    )
    return len(admitted(train, low))


def subsample(samples: Sequence[ImageRecord], n: int) -> list[ImageRecord]:
    """Shrink to exactly ``n`` images and keep the shape: the numbers per domain and class, in proportion.

    With s = n / total, the first ceil(s * count) images of every (domain, class) stay; rounding up leaves
    fewer than one image too many per combination. Then, domain by domain and within a domain class by class,
    each class loses its last image until exactly n remain, which one round always suffices for. A combination
    that kept a single image can lose it. The order of domains is ``DOMAINNET_ROUND`` where all are
    DomainNet's, else sorted; that of classes is the one in which they first appear in ``samples`` (in
    DomainNet's lists: by label). Products and quotients are of integers, so that s * count is not rounded up
    from a whole number by floating-point error.

    Raises:
        InputError: fewer than ``n`` images.
    """
    total = len(samples)
    if total < n:
        raise InputError(f"cannot subsample to {n} images, there are only {total}; give a smaller size=")
    counts = Counter((sample.domain, sample.class_name) for sample in samples)
    quota = {group: -(-n * count // total) for group, count in counts.items()}
    surplus = sum(quota.values()) - n
    for group in _round(counts)[:surplus]:
        quota[group] -= 1
    kept = []
    taken: Counter[tuple[str, str]] = Counter()
    for sample in samples:
        group = (sample.domain, sample.class_name)
        if taken[group] < quota[group]:
            taken[group] += 1
            kept.append(sample)
    return kept


def _round(groups: Mapping[tuple[str, str], int]) -> list[tuple[str, str]]:
    domains = {domain for domain, _ in groups}
    order = DOMAINNET_ROUND if domains <= set(DOMAINNET_ROUND) else sorted(domains)
    classes = dict.fromkeys(class_name for _, class_name in groups)
    return [(domain, name) for domain in order for name in classes if (domain, name) in groups]


def _check_names(kind: str, asked: Sequence[str], available: set[str]) -> None:
    for name in asked:
        if name not in available:
            raise InputError(
                f"there are no images of {kind} {name!r}; there are images of "
                f"{', '.join(sorted(available)[:20]) or 'nothing'}{', ...' if len(available) > 20 else ''}"
            )


# --- captions and the trainer's table -----------------------------------------------------------------------


def read_captions(root: str | os.PathLike[str]) -> dict[str, str]:
    """Read ``root/captions.tsv`` (columns ``filepath``, ``title``) as {path below the root: caption}.

    Raises:
        InputError: no such file, or other columns.
    """
    path = Path(root) / "captions.tsv"
    if not path.is_file():
        raise InputError(f"there are no captions: expected the file {path} with the columns filepath and title")
    table = pd.read_csv(path, sep="\t", dtype=str, keep_default_na=False)
    if not {"filepath", "title"} <= set(table.columns):
        raise InputError(f"{path} must have the columns filepath and title; it has {', '.join(table.columns)}")
    return dict(zip(table["filepath"], table["title"], strict=True))


def write_mixture(records: Sequence[ImageRecord], captions: Mapping[str, str], path: str | os.PathLike[str]) -> Path:
    """Write the table open_clip's trainer reads, ``filepath<TAB>title``, and the counts beside it as ``.counts.json``.

    Args:
        captions: {path below the root: caption}; white space in captions is written as single spaces.

    Raises:
        InputError: no records, records without a caption, captions that the trainer would not read as
        written.
    """
    if not records:
        raise InputError(f"no images to write to {path}")
    missing = [record.relative for record in records if not captions.get(record.relative, "").strip()]
    if missing:
        raise InputError(
            f"{len(missing)} of {len(records)} images have no caption, such as {', '.join(missing[:5])}; "
            f"add them to the captions"
        )
    table = pd.DataFrame(
        {
            "filepath": [str(record.path.absolute()) for record in records],
            "title": [" ".join(captions[record.relative].split()) for record in records],
        }
    )
    target = Path(path)
    with whole_file(target) as temporary:
        table.to_csv(temporary, sep="\t", index=False, quoting=csv.QUOTE_MINIMAL, lineterminator="\n")
        _check_read_back(table, temporary)
    counts: dict[str, dict[str, int]] = {}
    for record in records:
        of_domain = counts.setdefault(record.domain, {})
        of_domain[record.class_name] = of_domain.get(record.class_name, 0) + 1
    with whole_file(target.with_suffix(".counts.json")) as temporary:
        temporary.write_text(json.dumps({"total": len(records), "counts": counts}, indent=2) + "\n", encoding="utf-8")
    return target


def _check_read_back(table: pd.DataFrame, path: Path) -> None:
    # The trainer lets pandas guess: "None" and "NA" become missing values there, and then the caption "nan".
    seen = pd.read_csv(path, sep="\t")["title"].astype(str)
    for written, read in zip(table["title"], seen, strict=True):
        if written != read:
            raise InputError(f"the trainer would read the caption {written!r} as {read!r}; reword it")
