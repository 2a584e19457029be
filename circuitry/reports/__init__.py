"""Finished results become figures, sections and one page; nothing is computed here."""
