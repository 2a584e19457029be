"""Tables of what edits of a style do to one model: right answers on held-out and seen classes, at equal cost."""

from collections.abc import Iterator, Mapping
from typing import Any

from circuitry.circuits import Circuit
from experiments.study.claims import SEEN
from experiments.study.style_edits import (
    AT_A_STRENGTH,
    AT_CHANCE,
    CENTRED,
    IN_EACH,
    PART,
    PUT_BACK,
    PUT_IN,
    PUT_IN_RANDOM,
    RANDOM,
    RULE,
    RULES,
    SHARES,
    WHOLE,
    Answers,
    Edit,
    Pictures,
    StyleQuestion,
    embedding_edits,
    in_order,
    removing,
    unit_rivals,
)

import numpy as np
import pandas as pd
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_score
from torch import Tensor
from torch.nn.functional import one_hot

ELSEWHERE = "elsewhere"
"""Value of the column ``domain`` for the mean over all styles but the style of the question."""
UNITS_SHARE = 0.0063
"""Share of the units whose names are kept, the same in all models."""
PROBE_FOLDS = 3
Row = dict[str, Any]


def style_effects(
    question: StyleQuestion, test: Pictures, natural: str, *, further: bool
) -> dict[str, pd.DataFrame]:
    """Return what all edits of a style do to a model.

    Args:
        test: Test pictures of all classes and styles.
        natural: The style of photographs, into which the means of the style are put.
        further: Whether to remove the parts of all other styles, too, and to fit probes.

    Returns:
        ``answers``: columns edit, rule, strength, n_units, domain (the style, `ELSEWHERE` or the natural style), class
        (a held-out class or `SEEN`), right, alone (among the held-out classes), called (by the style), n_images.
        ``facts``: columns edit, what, value. ``units``: columns site, units, for a part of `UNITS_SHARE`.
    """
    part = question.part.find(share=SHARES[-1])
    ranked = in_order(part)
    generator = np.random.default_rng(0)
    drawn = {share: circuit.random(generator) for share, circuit in ranked.items()}
    edits = {PART: removing(question, ranked), RANDOM: removing(question, drawn)}
    edits |= embedding_edits(question)
    chosen = strengths_by_rule(question, edits)
    size = chosen[RULE][PART]

    of_style = test.styles == question.place
    in_style = test.where(of_style)
    elsewhere = test.where(~of_style)
    rows = list[Row]()
    whole = question.answered(test.embeddings)
    rows += answer_rows(question, test, whole, {"edit": WHOLE, "rule": RULE})
    for name, edit in edits.items():
        answers = edit.answers(in_style, edit.strengths)
        after = dict(zip(edit.strengths, answers, strict=True))
        of_rules = {rule: strengths[name] for rule, strengths in chosen.items()}
        of_rules |= {f"{AT_A_STRENGTH} {s:g}": s for s in edit.strengths[:: edit.every]}
        for rule, strength in of_rules.items():
            about = _about(name, rule, edit, strength)
            rows += answer_rows(question, in_style, after[strength], about)
        if name != RANDOM:
            # Other styles are asked about by one rule alone, since they take the most time.
            strength = of_rules[RULE]
            (answered,) = edit.answers(elsewhere, [strength])
            about = _about(name, RULE, edit, strength)
            rows += answer_rows(question, elsewhere, answered, about)

    rivals = unit_rivals(part, size, 0)
    if further:
        for style in question.styles:
            if style != question.style:
                of_other = question.part.find(style, SHARES[-1]).source
                rivals[f"part of {style}"] = of_other.strongest(size, budget="global")
    cut = question.embeddings(in_style.images, list(rivals.values()))
    for (name, circuit), z in zip(rivals.items(), cut, strict=True):
        about = {"edit": name, "rule": RULE, "strength": size, "n_units": circuit.count}
        rows += answer_rows(question, in_style, question.answered(z), about)
    rows += _put_in(question, in_style, test, natural, ranked[size], drawn[size])
    facts = _facts(question, test, edits, chosen[RULE], further)
    return {
        "answers": pd.DataFrame(rows),
        "facts": pd.DataFrame(facts),
        "units": units_by_site(ranked[UNITS_SHARE]),
    }


def strengths_by_rule(
    question: StyleQuestion, edits: Mapping[str, Edit]
) -> dict[str, dict[str, float]]:
    """Return the strength of each edit by each rule, from training pictures of seen classes.

    It is the last strength before the first that costs more than the rule allows; if the weakest costs too much, it is
    the weakest. Random units have the strength of the part.

    Returns:
        Strengths by the name of the edit, by the name of the rule.
    """
    fitting = question.fitting
    of_style = fitting.styles == question.place
    # What an edit costs in all other styles is read on half of their pictures.
    pictures = fitting.where(of_style | (torch.arange(len(of_style)) % 2 == 0))
    in_style = pictures.styles == question.place
    before = question.right(question.answered(pictures.embeddings).logits, pictures)
    # Of each edit, the losses in all styles by strength [strengths, styles].
    losses = dict[str, Tensor]()
    at_chance = len(SHARES) - 1
    for name, edit in edits.items():
        # Random units have the strength of the part.
        if name != RANDOM:
            after = edit.answers(pictures, edit.strengths)
            right = [question.right(answers.logits, pictures) for answers in after]
            losses[name] = before - torch.stack(right)
        if name == PART:
            for place in reversed(range(len(after))):
                called = question.called(after[place].embeddings[in_style])
                if called.float().mean() <= 1 / len(question.styles):
                    at_chance = place
    chosen = dict[str, dict[str, float]]()
    allowed = {
        **RULES,
        AT_CHANCE: max(0.0, float(losses[PART][at_chance, question.place])),
    }
    for rule, most in {**allowed, IN_EACH: RULES[RULE]}.items():
        of_rule = dict[str, float]()
        for name, of_styles in losses.items():
            lost = (
                of_styles.amax(1) if rule == IN_EACH else of_styles[:, question.place]
            )
            place = _last_within(lost.tolist(), most)
            if rule == AT_CHANCE and name == PART:
                place = at_chance
            of_rule[name] = edits[name].strengths[place]
        chosen[rule] = of_rule | {RANDOM: of_rule[PART]}
    return chosen


def _last_within(losses: list[float], most: float) -> int:
    """Return the place before the first loss that is too large."""
    for place, loss in enumerate(losses):
        # Shares of pictures are not exact.
        if loss > most + 1e-6:
            return max(place - 1, 0)
    return len(losses) - 1


def _about(name: str, rule: str, edit: Edit, strength: float) -> Row:
    """Return the columns that name an edit in a strength."""
    n_units = edit.n_units.get(strength, 0)
    return {"edit": name, "rule": rule, "strength": strength, "n_units": n_units}


def answer_rows(
    question: StyleQuestion, pictures: Pictures, answers: Answers, about: Row
) -> Iterator[Row]:
    """Yield a row for each held-out class and for the seen classes: in the style, elsewhere, or in photographs."""
    pair = [question.classes.index(name) for name in question.held_out]
    right = answers.logits.argmax(1) == pictures.labels
    first_of_pair = answers.logits[:, pair].argmax(1)
    alone = torch.tensor(pair)[first_of_pair] == pictures.labels
    called = question.called(answers.embeddings)
    of_style = pictures.styles == question.place
    of_pair = torch.isin(pictures.labels, torch.tensor(pair))
    for domain, of_domain in ((question.style, of_style), (ELSEWHERE, ~of_style)):
        if not of_domain.any():
            continue
        groups = {
            question.classes[label]: of_domain & (pictures.labels == label)
            for label in pair
        }
        groups[SEEN] = of_domain & ~of_pair
        for group, mask in groups.items():
            yield {
                **about,
                "domain": domain,
                "class": group,
                "right": _mean(right[mask]),
                "alone": _mean(alone[mask]) if group != SEEN else np.nan,
                "called": _mean(called[mask]),
                "n_images": int(mask.sum()),
            }


def _mean(mask: Tensor) -> float:
    return round(float(mask.float().mean()), 6)


def _put_in(
    question: StyleQuestion,
    in_style: Pictures,
    test: Pictures,
    natural: str,
    part: Circuit,
    random: Circuit,
) -> Iterator[Row]:
    """Yield rows of patching alone: the part's means of the style put into photographs, and of photographs back."""
    if natural == question.style:
        return
    photographs = test.where(test.styles == question.styles.index(natural))
    whole = question.answered(photographs.embeddings)
    of_style = question.mean_over(question.style)
    patched = {
        PUT_IN: (photographs, part, of_style),
        PUT_IN_RANDOM: (photographs, random, of_style),
        PUT_BACK: (in_style, part, question.mean_over(natural)),
    }
    for row in answer_rows(question, photographs, whole, {"edit": WHOLE, "rule": RULE}):
        yield {**row, "domain": natural}
    for name, (pictures, circuit, means) in patched.items():
        (z,) = question.embeddings(pictures.images, [circuit], means)
        answers = question.answered(z)
        about = {"edit": name, "rule": RULE, "n_units": circuit.count}
        for row in answer_rows(question, pictures, answers, about):
            yield row if name == PUT_BACK else {**row, "domain": natural}


def bias(question: StyleQuestion, logits: Tensor) -> float:
    """Return how much less a style answers the held-out classes than other styles do, on pictures of seen classes.

    On a picture of a seen class it is the mean logit of the held-out classes minus the mean logit of all other seen
    classes, at the model's scale; this is averaged over pictures of the style, less pictures of all other styles. No
    picture of a held-out class is needed, only their names.

    Args:
        logits: Logits of the classes on the fitting pictures.
    """
    held_out = torch.tensor([name in question.held_out for name in question.classes])
    pictures = question.fitting
    scaled = question.scale * logits
    own = one_hot(pictures.labels, len(question.classes)).bool()
    other = ~held_out & ~own
    rest = (scaled * other).sum(1) / other.sum(1)
    gap = scaled[:, held_out].mean(1) - rest
    seen = ~held_out[pictures.labels]
    of_style = pictures.styles == question.place
    return float(gap[seen & of_style].mean() - gap[seen & ~of_style].mean())


def _facts(
    question: StyleQuestion,
    test: Pictures,
    edits: Mapping[str, Edit],
    strengths: Mapping[str, float],
    further: bool,
) -> list[Row]:
    """Return the bias before and after edits, and how well a probe tells the style from embeddings."""
    fitting = question.fitting
    answers = {WHOLE: question.answered(fitting.embeddings)}
    for name in (PART, CENTRED):
        (answers[name],) = edits[name].answers(fitting, [strengths[name]])
    facts = list[Row]()
    for name, after in answers.items():
        value = bias(question, after.logits)
        facts.append({"edit": name, "what": "bias", "value": value})
    if not further:
        return facts
    (cut,) = edits[PART].answers(test, [strengths[PART]])
    told = (test.styles == question.place).numpy()
    folds = StratifiedKFold(PROBE_FOLDS, shuffle=True, random_state=0)
    for name, z in ((WHOLE, test.embeddings), (PART, cut.embeddings)):
        probe = LogisticRegression(C=100, class_weight="balanced", max_iter=1000)
        scores = cross_val_score(
            probe, z.numpy(), told, cv=folds, scoring="balanced_accuracy"
        )
        facts.append({"edit": name, "what": "style by probe", "value": scores.mean()})
    return facts


def units_by_site(part: Circuit) -> pd.DataFrame:
    """Return the units of a part by site."""
    rows = list[Row]()
    for depth, (site, units) in enumerate(part.units.items()):
        names = " ".join(map(str, units))
        rows.append({"site": site, "depth": depth, "n": len(units), "units": names})
    return pd.DataFrame(rows)
