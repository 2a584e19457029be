"""Write the pages of results, and the README's section on them, again: python -m experiments.pages."""

from experiments.pages.rendering import PAGES, README, path_of, written

for page in (*PAGES, README):
    path_of(page).write_text(written(page), encoding="utf-8")
