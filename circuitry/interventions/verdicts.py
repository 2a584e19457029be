"""The verdict on a circuit in words: does it work, and is it its class's own? No torch.

It is read off a curve at one size, of one class or of several that are pooled.

1. A circuit works if it gives the images of its class the class nearly as often as the whole model, other images hardly
   more often, and recovers half of the answers (KL). Values decide; their intervals stand in the tables. Faithfulness
   alone cannot tell a circuit of the class from one that answers its class to everything, and selectivity does not see
   other images that get the class.
2. It is the class's own if circuits of other classes, of its size, do not work and recover less of the answers, by the
   interval of the difference on the same images.
"""

from collections.abc import Mapping

from circuitry.interventions.curves import FaithfulnessCurve

RIGHT = 0.8
"""A circuit works from this share of the whole model's right answers on,"""
FALSE_MORE = 0.1
"""up to this many false answers more than the whole model gives, as a share of other images,"""
ANSWERS = 0.5
"""and from this share of the answers on: KL recovered."""
TO_EVERYTHING = 0.5
"""The share of other images that get the class from which on a circuit answers its class to everything."""
NO_ANSWERS = 0.1
"""KL recovered below which a circuit does nothing, if its right answers are no more than with nothing kept."""
LEAK = 0.1
"""The share of the whole model's contrast from which on something passes by, with nothing kept."""
_ROUNDING = 1e-9
"""Shares of images are compared with products of shares: 0.8 times 1.0 is not to fail by the last bit."""

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
    """Return one of the `VERDICTS` on the circuit of one of a curve's sizes."""
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
    """Return whether a circuit works, by the values of `FaithfulnessCurve.at`."""
    right = values["right"]
    false = values["false"]
    answers = values["kl recovered"]
    return (
        right[circuit] >= RIGHT * right["full"] - _ROUNDING
        and answers[circuit] >= ANSWERS - _ROUNDING
        and false[circuit] <= false["full"] + FALSE_MORE + _ROUNDING
    )


def why_open(curve: FaithfulnessCurve) -> str:
    """Return why there is no verdict on a curve's circuits; nothing where there is one."""
    for measure in ("right", "false", "kl recovered"):
        if reason := curve.reason(measure):
            return reason
    # A share of no right answers is reached by every circuit.
    if curve.at(0)["right"]["full"] > 0:
        return ""
    return "the whole model gives no image of the class the class"


def describe_leak(curve: FaithfulnessCurve) -> str:
    """Say that the metric differs with nothing kept; empty where it does not."""
    # `not >` and not `<=`: the leak is NaN where the model has no contrast.
    if not curve.leak > LEAK:
        return ""
    return (
        f" With nothing kept the metric still has {curve.leak:.0%} of the whole model's contrast between the class and "
        "others: something passes by all circuits."
    )
