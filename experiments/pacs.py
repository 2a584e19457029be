"""PACS: which pictures are used, and a real network with a head of its classes.

PACS has 7 classes in 4 styles. The pictures of a class in a style are put in order by the SHA-256 of
``domain/class/file``, and at most 160 of them are used. Anybody with all of PACS can take the same pictures, or later
ones. The first pictures fit a head, and take no further part: 60 photographs of each class, or 20 pictures of each
class in each style.

The head is a logistic regression of normalised embeddings without a bias. Its penalty is chosen by cross-validation.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path

from circuitry.bases import in_components
from circuitry.data import DomainFolder, ImageRecord, load_image
from circuitry.data.image_lists import ListedImage
from circuitry.data.image_sources import ImageList
from circuitry.encoder import Encoder
from circuitry.encoder.metrics import ClassLogit
from circuitry.models import Clip, from_encoder, load_classifier

import numpy as np
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from torch import Tensor

PHOTO = "photo"
N_OF_CELL = 160
"""Largest number of pictures of a class in a style that are used."""
HEAD_OF_PHOTOGRAPHS = {PHOTO: 60}
"""Pictures of each class that fit a head of photographs, by style."""
HEAD_OF_STYLES = {PHOTO: 20, "art_painting": 20, "cartoon": 20, "sketch": 20}
"""Pictures of each class that fit a head of all styles, by style."""
PENALTIES = tuple(10.0**k for k in range(6))
"""Candidates for the inverse penalty of the head."""
BATCH = 32
"""Number of images that run at once."""
ByClass = Mapping[str, Tensor]
"""A tensor with a row for each image, by class."""


def choose_pictures(
    data: Path, n_head: Mapping[str, int], skip: int = 0
) -> tuple[DomainFolder, DomainFolder]:
    """Return the pictures that fit a head, and all other pictures, each in the order of the rule.

    Args:
        data: Folder of PACS.
        n_head: Number of pictures of each class that fit the head, by style.
        skip: How many pictures of each class in each style are left out, from the first in the order.
    """
    folder = DomainFolder(data, None)
    head: dict[str, list[ListedImage]] = {domain: [] for domain in n_head}
    others: dict[str, list[ListedImage]] = {domain: [] for domain in folder.domains}
    for domain in folder.domains:
        for name in folder.classes:
            records = sorted(folder.select(name, domain), key=place_of)
            records = records[skip : skip + N_OF_CELL]
            listed = [ListedImage(record.relative, name) for record in records]
            if domain in n_head:
                head[domain] += listed[: n_head[domain]]
                listed = listed[n_head[domain] :]
            others[domain] += listed
    of_head = ImageList(folder.root, head, folder.all_classes)
    of_others = ImageList(folder.root, others, folder.all_classes)
    return DomainFolder(of_head), DomainFolder(of_others)


def place_of(record: ImageRecord) -> str:
    """Return the digest by which pictures of a class in a style are put in order."""
    return sha256(record.relative.encode()).hexdigest()


@dataclass(frozen=True, eq=False)
class Head:
    """A linear head of normalised embeddings. As a metric, it takes the place of the class weights of a model."""

    rows: Tensor
    """A row for each class [classes, d], of about length one."""
    scale: float
    """Factor that turns the products of rows and normalised embeddings into logits."""
    name: str = "logit"
    """Name of the metric in tables."""

    def __call__(self, weights: Tensor, label: int) -> ClassLogit:
        """Return the metric of a class."""
        return ClassLogit(self.rows, label, scale=self.scale)


def fit_head(embeddings: ByClass) -> Head:
    """Fit a head to embeddings of the images of each class."""
    directions = torch.cat(list(embeddings.values()))
    directions = torch.nn.functional.normalize(directions, dim=-1)
    labels = np.repeat(np.arange(len(embeddings)), list(map(len, embeddings.values())))
    x = directions.double().numpy()
    losses = dict[float, float]()
    for penalty in PENALTIES:
        head = LogisticRegression(C=penalty, fit_intercept=False, max_iter=2000)
        scores = cross_val_score(head, x, labels, scoring="neg_log_loss", cv=5)
        losses[penalty] = -scores.mean()
    best = min(losses, key=lambda penalty: losses[penalty])
    head = LogisticRegression(C=best, fit_intercept=False, max_iter=2000)
    rows = torch.from_numpy(head.fit(x, labels).coef_).float()
    scale = float(rows.norm(dim=1).mean())
    print(f"head: C {best:g}, scale {scale:.1f}, losses {losses}")
    return Head(rows / scale, scale)


@torch.no_grad()
def embedded(encoder: Callable[[Tensor], Tensor], images: ByClass) -> dict[str, Tensor]:
    """Return embeddings by class, in batches."""
    embeddings = dict[str, Tensor]()
    for name, of_class in images.items():
        batches = torch.split(of_class, BATCH)
        embeddings[name] = torch.cat([encoder(batch) for batch in batches])
    return embeddings


def load_with_head(model: str, size: int, head: DomainFolder) -> tuple[Clip, Head]:
    """Load a classifier whose units are hidden channels, for images of a size, and fit a head of PACS to it.

    Args:
        model: Name of the classifier, such as efficientnet-lite0.
        size: Height and width of images, in pixels.
        head: Pictures that fit the head.
    """
    tower = load_classifier(model).encoder
    image_size = (size, size)
    chain = replace(tower.chain, image_size=image_size)
    encoder = Encoder(tower.tower, chain.stages, image_size, chain=chain)
    half = (0.5, 0.5, 0.5)
    prepared = PreprocessCfg(
        size=image_size, mean=half, std=half, interpolation="bicubic"
    )
    preprocess = image_transform_v2(prepared, is_train=False)
    of_classes = dict[str, Tensor]()
    for name in head.classes:
        records = [record for record in head.records if record.class_name == name]
        of_classes[name] = read_pictures(records, preprocess)
    with encoder.running():
        fitted = fit_head(embedded(encoder, of_classes))
    rows = dict(zip(head.classes, fitted.rows, strict=True))
    clip = from_encoder(in_components(encoder), preprocess, rows, name=model)
    return clip, fitted


def read_pictures(
    records: Sequence[ImageRecord], preprocess: Callable[..., Tensor]
) -> Tensor:
    """Return pictures as one tensor [pictures, 3, H, W]."""
    return torch.stack([preprocess(load_image(record.path)) for record in records])
