"""Sections of the reports that single experiments of the study write."""
