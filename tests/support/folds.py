"""Tables of folds for tests of comparisons."""

import pandas as pd


def folds_of_halves(halves: pd.DataFrame) -> pd.DataFrame:
    """Return a table of folds from similarities of two halves: columns class, domain, site, value."""
    names = {"class_a": halves["class"], "class_b": halves["class"]}
    names |= {"domain_a": halves["domain"], "domain_b": halves["domain"]}
    return pd.DataFrame(
        {
            **names,
            "fold_a": 0,
            "fold_b": 1,
            "site": halves["site"],
            "value": halves["value"],
        }
    )
