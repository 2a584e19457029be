"""Thin drivers that make and judge the models which the core analyses."""
