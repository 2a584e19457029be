"""Which claim does each figure of the study test, and what would refute it? In our words; does not import torch."""

from typing import NamedTuple


class Tested(NamedTuple):
    """What a figure is drawn for."""

    claim: str
    refuted_by: str


CLAIMS = {
    "accuracy_by_setting": Tested(
        "More domains help (CG high above CG low), a domain that was never seen too (leave-out above photographs). "
        "It can even be easier than one that lacks the classes.",
        "CG high not above CG low, leave-out not above photographs, or leave-out above CG high in no domain.",
    ),
    "top5_and_f1": Tested(
        "The order of the settings does not depend on the measure.",
        "Another order by top-5 accuracy or by F1.",
    ),
    "effective_robustness": Tested(
        "Diverse models are more accurate on drawings than their accuracy on photographs foretells.",
        "They lie on the line of models of photographs.",
    ),
    "domain_interpolation": Tested(
        "Each further domain helps.",
        "Accuracy does not rise with the number of domains.",
    ),
    "class_interpolation": Tested(
        "Held-out classes gain from other held-out classes that are seen in the test domain.",
        "Accuracy does not rise with the share of these classes.",
    ),
    "imagenet_sketch": Tested(
        "Sketches of further classes help to recognise held-out classes in sketches.",
        "Models with ImageNet-Sketch are not above the same settings without it.",
    ),
    "imagenet_sketch_classes": Tested(
        "What DomainNet's own sketches add depends on how many of their classes are seen.",
        "Accuracy does not depend on the number of sketch classes.",
    ),
    "base_sets": Tested(
        "The order of the settings is the same with more photographs.",
        "Another order with CC3M or CC12M.",
    ),
    "architectures": Tested(
        "The order of the settings is the same for transformers.",
        "Another order with ViT-S-32 or Swin-T.",
    ),
    "supervised_against_clip": Tested(
        "Language alone does not explain it: classifiers have the same order of settings.",
        "Another order with classifiers.",
    ),
    "aligned_captions": Tested(
        "Captions that name no style align the domains, and bring no generalization to quickdraw.",
        "Accuracy on held-out quickdraws rises with aligned captions.",
    ),
    "embedding_map": Tested(
        "Quickdraw lies apart from all other domains, less so with aligned captions.",
        "Quickdraw lies among the others with standard captions.",
    ),
    "separation": Tested(
        "Alignment brings quickdraw closer to the others.",
        "Its distance to the others does not fall with aligned captions.",
    ),
    "sharing_by_setting": Tested(
        "The more domains share features, the better a model generalizes.",
        "The test domain shares no more features in the setting that generalizes better.",
    ),
    "cka_over_depth": Tested(
        "Domains share representations in intermediate layers.",
        "CKA between domains is lowest in the middle of the network.",
    ),
    "cka_apart": Tested(
        "Representations of quickdraw are the least similar to the others.",
        "Another domain is less similar.",
    ),
    "cka_by_group": Tested(
        "Quickdraw is apart for held-out and for seen classes.",
        "It is apart for one of the two alone.",
    ),
    "units_apart": Tested(
        "Circuits of quickdraw share the fewest units with the others.",
        "Those of another domain share fewer.",
    ),
    "domain_similarity": Tested(
        "Circuits of quickdraw share the fewest edges with the others.",
        "Those of another domain share fewer.",
    ),
    "similarity_by_group": Tested(
        "Quickdraw is apart for circuits of held-out and of seen classes.",
        "It is apart for one of the two alone.",
    ),
    "sharing_against_accuracy": Tested(
        "Models generalize where domains share circuitry: correlation over models above zero.",
        "A correlation that is not above zero, or is not so without one model or given accuracy elsewhere.",
    ),
}
"""A dictionary from the name of each figure of the study to what it tests."""
