"""Names for the features of a sparse autoencoder on CLIP's image embeddings (Rao et al. 2024, arXiv 2407.14499).

A feature's direction and the embeddings of texts lie in one space, so a feature is called by the word of a
vocabulary whose text embedding has the largest cosine with it.
"""

from collections.abc import Sequence

import pandas as pd
import torch.nn.functional as F

from circuitry.data.captions import STYLE_WORDS, readable
from circuitry.models.clip import Clip
from circuitry.models.prompts import Template
from circuitry.models.sae import SparseAutoencoder
from circuitry.representations.image_features import site_of
from circuitry.runs.errors import InputError


def default_vocabulary(class_names: Sequence[str] = ()) -> tuple[str, ...]:
    """Return class names, the words of DomainNet's styles, and the names of ImageNet's 1000 classes.

    ImageNet's names come with open_clip. Its byte-pair vocabulary has thirty times as many words, but many of them
    are endings, proper names and misspellings.
    """
    from open_clip import IMAGENET_CLASSNAMES

    styles = [word for words in STYLE_WORDS.values() for word in words]
    return tuple(dict.fromkeys(map(readable, [*class_names, *STYLE_WORDS, *styles, *IMAGENET_CLASSNAMES])))


def name_features(
    sae: SparseAutoencoder,
    clip: Clip,
    vocabulary: Sequence[str] | None = None,
    templates: Sequence[Template] = ("{}",),
) -> pd.DataFrame:
    """Name every feature by the word whose text embedding is nearest to its decoder row.

    Args:
        sae: An autoencoder of the model's embedding.
        clip: The model, whose text encoder embeds the words.
        vocabulary: Words and phrases; default: `default_vocabulary`. For a small model give the words that it was
            trained on: others have arbitrary embeddings.
        templates: Prompts, averaged as in `Clip.text_weights`; default: the bare word.

    Returns:
        Columns feature, name, cosine. Images and texts lie apart in CLIP's space, so cosines are small; what counts
        is which is the largest.

    Raises:
        InputError: for an autoencoder of another site than the embedding, or of another width.

    Example:
        >>> name_features(sae, clip, default_vocabulary(images.classes)).head(1)
           feature      name    cosine
        0        0  corduroy     0.31
    """
    embedding = clip.encoder.sites[-1]
    if site_of(sae, clip) != embedding:
        raise InputError(
            f"Only features of the embedding ({embedding!r}) can be compared with texts, but this sparse autoencoder "
            f"is of site {sae.site!r}: look at the images in which its features are active instead."
        )
    words = default_vocabulary() if vocabulary is None else tuple(dict.fromkeys(map(readable, vocabulary)))
    texts = clip.text_weights(words, templates)
    if texts.shape[1] != sae.d:
        raise InputError(
            f"{clip.name} embeds texts in {texts.shape[1]} dimensions, but this sparse autoencoder has {sae.d}: give "
            "the model that it was trained on."
        )
    nearest = (F.normalize(sae.w_dec.to(texts), dim=-1) @ texts.T).max(dim=1)
    return pd.DataFrame(
        {
            "feature": range(sae.n_features),
            "name": [words[i] for i in nearest.indices.tolist()],
            "cosine": nearest.values.tolist(),
        }
    )
