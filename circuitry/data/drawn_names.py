"""Names and place of the drawn pictures that come with this package. No torch, no pandas: options read them."""

from pathlib import Path

DRAWN_IMAGES = Path(__file__).with_name("drawn")
"""Folder of the pictures, ``<style>/<class>/<style>_<000030>.png``. Its ``captions.tsv`` has the captions of all six
styles, so its words are those that the shipped models know."""
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
"""What the pictures show, and the shipped models know; sorted."""
DRAWN_STYLES = ("clipart", "quickdraw", "real")
"""How the pictures are drawn, by DomainNet's names."""
