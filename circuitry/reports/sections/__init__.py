"""Sections of a report: tables, figures and sentences on one question."""
