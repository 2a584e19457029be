"""Sections of a report. Each section has the tables, figures and sentences on one question."""
