"""Names and folder of the drawn pictures that come with this package.

This module imports neither torch nor pandas, because the options of command lines use it.
"""

from pathlib import Path

DRAWN_IMAGES = Path(__file__).with_name("drawn")
"""Folder of the pictures, ``<style>/<class>/<style>_<000030>.png``. Its ``captions.tsv`` has the captions of all six
styles. The words of these captions are the words that the shipped models know."""
DRAWN_CLASSES = (
    "bicycle",
    "butterfly",
    "car",
    "clock",
    "cup",
    "fish",
    "flower",
    "house",
    "ice_cream",
    "key",
    "ladder",
    "mushroom",
    "sailboat",
    "star",
    "tree",
    "umbrella",
)
"""Names of the classes of the pictures, sorted. The shipped models were trained on the same classes."""
DRAWN_STYLES = ("clipart", "quickdraw", "real")
"""Names of the styles of the pictures, which are also names of DomainNet's domains."""
