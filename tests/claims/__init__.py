"""Phrases of the text with places for numbers, and how the numbers come from committed tables: a module a subject."""

import importlib
import pkgutil

from tests.support.committed_tables import Numbers

CLAIMS: dict[str, Numbers] = {
    phrase: numbers
    for module in pkgutil.iter_modules(__path__)
    for phrase, numbers in importlib.import_module(
        f"{__name__}.{module.name}"
    ).CLAIMS.items()
}
