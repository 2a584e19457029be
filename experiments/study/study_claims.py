"""Which claims does each figure of the study test, and what would refute them? In our words.

Where the program ``claims`` judges a claim, the words are those of `experiments.study.real_claims`.
"""

from typing import NamedTuple

from experiments.study import real_claims


class Tested(NamedTuple):
    """What a figure is drawn for."""

    claim: str
    refuted_by: str


_JUDGED = {
    claim.name: Tested(f"{claim.question} {claim.predicts}", claim.refuted_by)
    for claim in real_claims.CLAIMS
}


def _judged(*names: str) -> tuple[Tested, ...]:
    """Return the claims of these names."""
    return tuple(_JUDGED[name] for name in names)


CLAIMS: dict[str, tuple[Tested, ...]] = {
    "accuracy_by_setting": _judged(
        "diversity", "unseen-domain", "sometimes", "gap", "far-gap"
    ),
    "top5_and_f1": (
        Tested(
            "The order of the settings does not depend on the measure.",
            "Another order by top-5 accuracy or by F1.",
        ),
    ),
    "effective_robustness": (
        Tested(
            "Diverse models are more accurate on drawings than their accuracy on photographs foretells.",
            "They lie on the line of models of photographs.",
        ),
    ),
    "domain_interpolation": _judged("domain-interpolation"),
    "class_interpolation": _judged("class-interpolation"),
    "imagenet_sketch": (
        Tested(
            "Sketches of further classes help to recognise held-out classes in sketches.",
            "Models with ImageNet-Sketch are not above the same settings without it.",
        ),
    ),
    "imagenet_sketch_classes": (
        Tested(
            "What DomainNet's own sketches add depends on how many of their classes are seen.",
            "Accuracy does not depend on the number of sketch classes.",
        ),
    ),
    "base_sets": (
        Tested(
            "The order of the settings is the same with more photographs.",
            "Another order with CC3M or CC12M.",
        ),
    ),
    "architectures": (
        Tested(
            "The order of the settings is the same for transformers.",
            "Another order with ViT-S-32 or Swin-T.",
        ),
    ),
    "supervised_against_clip": (
        Tested(
            "Language alone does not explain it: classifiers have the same order of settings.",
            "Another order with classifiers.",
        ),
    ),
    "aligned_captions": _judged("alignment-accuracy"),
    "embedding_map": _judged("embeddings"),
    "separation": _judged("alignment"),
    "sharing_by_setting": (
        Tested(
            "The more domains share features, the better a model generalizes.",
            "The test domain shares no more features in the setting that generalizes better.",
        ),
    ),
    "cka_over_depth": (
        Tested(
            "Domains share representations in intermediate layers.",
            "CKA between domains is lowest in the middle of the network.",
        ),
    ),
    "cka_apart": _judged("cka"),
    "cka_by_group": (
        Tested(
            "Quickdraw is apart for held-out and for seen classes.",
            "It is apart for one of the two alone.",
        ),
    ),
    "units_apart": _judged("units"),
    "domain_similarity": _judged("edges"),
    "similarity_by_group": (
        Tested(
            "Quickdraw is apart for circuits of held-out and of seen classes.",
            "It is apart for one of the two alone.",
        ),
    ),
    "sharing_against_accuracy": _judged("sharing"),
}
"""A dictionary from the name of each figure of the study to what it tests."""
