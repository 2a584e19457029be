"""The verdict on a circuit in words: does it work, and do circuits of other classes work less well?

The verdict is computed from a faithfulness curve at one size. The curve may be of one class, or pooled over several
classes.

1. A circuit works if three conditions hold. It classifies the images of its class as this class nearly as often as the
   whole model does. It classifies hardly more of the other images as this class than the whole model does. It recovers
   at least half of the answers (the measure "kl recovered"). The measured values decide, and not their intervals.
   Faithfulness alone cannot separate a circuit of the class from a circuit that classifies every image as the class.
   Selectivity does not show how many other images are classified as the class.
2. A circuit that works is the class's own if circuits of other classes, of the same size, do not work on images of the
   class and recover less of the answers. The difference is measured on the same images, and its whole interval has to
   lie above zero.

Does not import torch.
"""

from collections.abc import Mapping

from circuitry.interventions.curves import FaithfulnessCurve

RIGHT = 0.8
"""A circuit works only if its share of right answers is at least this factor times the whole model's share."""
FALSE_MORE = 0.1
"""A circuit works only if its share of false answers (other images that are classified as the class) exceeds the whole
model's share by at most this number."""
ANSWERS = 0.5
"""A circuit works only if it recovers at least this share of the answers (KL)."""
TO_EVERYTHING = 0.5
"""A circuit answers its class to everything if its right answers suffice (`RIGHT`) and at least this share of the other
images is classified as the class."""
NO_ANSWERS = 0.1
"""A circuit does nothing if it recovers less than this share of the answers (KL), and its share of right answers is no
larger than the share with every unit ablated."""
LEAK = 0.1
"""A larger `FaithfulnessCurve.leak` is reported. It is the share of the metric's difference between the class and other
classes that remains with every unit ablated, so no circuit can explain it."""
_ROUNDING = 1e-9
"""Tolerance of comparisons of shares. Without it, a share could miss a threshold such as 0.8 times 1.0 by a rounding
error."""

OWN = "works and is the class's own"
AS_ANOTHERS = "works, as would another class's"
WORKS = "works, whether as the class's own cannot be told"
TO_ALL = "answers its class to everything"
NOTHING = "does nothing"
IN_PART = "works in part"
OPEN = "cannot be told"
VERDICTS = (OWN, AS_ANOTHERS, WORKS, IN_PART, TO_ALL, NOTHING, OPEN)
WORKING = VERDICTS[:3]


def verdict_of(curve: FaithfulnessCurve, place: int = 0) -> str:
    """Return the verdict, one of the `VERDICTS`, on one circuit of a curve.

    Args:
        curve: The curve of the circuits.
        place: The index of the circuit's size among the sizes of the curve.
    """
    if why_open(curve):
        return OPEN
    values = curve.at(place)
    right = values["right"]
    false = values["false"]
    answers = values["kl recovered"]
    if does_work(values, "kept"):
        if "foreign" not in right:  # no circuits of other classes were measured
            return WORKS
        if does_work(values, "foreign"):
            return AS_ANOTHERS
        # The whole interval of the difference is above zero.
        return OWN if curve.ahead_of_foreign(place)[1] > 0 else WORKS
    if (
        right["kept"] >= RIGHT * right["full"] - _ROUNDING
        and false["kept"] >= TO_EVERYTHING - _ROUNDING
    ):
        return TO_ALL
    if (
        answers["kept"] < NO_ANSWERS - _ROUNDING
        and right["kept"] <= right["empty"] + _ROUNDING
    ):
        return NOTHING
    return IN_PART


def does_work(values: Mapping[str, Mapping[str, float]], circuit: str) -> bool:
    """Return whether a circuit works.

    A circuit works under three conditions. Its share of right answers is at least `RIGHT` times the whole model's
    share. Its share of false answers is at most the whole model's share plus `FALSE_MORE`. And it recovers at least the
    share `ANSWERS` of the KL.

    Args:
        values: The values of the curve at one size, as `FaithfulnessCurve.at` returns them.
        circuit: The name of the circuit in these values, such as ``kept`` or ``foreign``.
    """
    right = values["right"]
    false = values["false"]
    answers = values["kl recovered"]
    return (
        right[circuit] >= RIGHT * right["full"] - _ROUNDING
        and answers[circuit] >= ANSWERS - _ROUNDING
        and false[circuit] <= false["full"] + FALSE_MORE + _ROUNDING
    )


def why_open(curve: FaithfulnessCurve) -> str:
    """Return the reason why there is no verdict on a curve's circuits; an empty text if there is a verdict."""
    for measure in ("right", "false", "kl recovered"):
        if reason := curve.reason(measure):
            return reason
    # If the whole model has no right answers, every circuit reaches the required share of them.
    if curve.at(0)["right"]["full"] > 0:
        return ""
    return "the whole model gives no image of the class the class"


def describe_leak(curve: FaithfulnessCurve) -> str:
    """Return a sentence if the metric separates the class from other classes even with every unit ablated.

    The sentence says which share of the whole model's difference remains (`FaithfulnessCurve.leak`). The text is empty
    if this share is at most `LEAK`, or unknown.
    """
    # `not >` and not `<=`: the leak is NaN where the model has no contrast.
    if not curve.leak > LEAK:
        return ""
    return (
        f" With nothing kept the metric still has {curve.leak:.0%} of the whole model's contrast between the class and "
        "others: something passes by all circuits."
    )
