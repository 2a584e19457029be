"""Phrases of the text with places for numbers, and how the numbers come from committed tables: a module a subject."""
