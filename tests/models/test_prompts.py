"""Names and styles in prompts; see also test_text_weights."""

import pytest

from circuitry.data.names import in_a_sentence
from circuitry.models.prompts import templates_of
from circuitry.runs import InputError


def test_hyphens_stay_in_prompts() -> None:
    assert in_a_sentence("ice_cream") == "ice cream"
    assert in_a_sentence("t-shirt") == "t-shirt"
    assert in_a_sentence("_black-and-white__colobus ") == "black-and-white colobus"


def test_own_style_names_the_domain_and_other_names_are_refused() -> None:
    assert templates_of("own-style", "quickdraw") == ("a quickdraw of a {}.", "a quickdraw of the {}.")
    with pytest.raises(InputError, match="'own style'"):
        templates_of("own style", "quickdraw")
