"""The classes and images of a report, for the text files beside its tables."""

from collections.abc import Iterable

from circuitry.data.domains import DomainFolder, ImageRecord


def listings_of(images: DomainFolder, n_images: int | None = None, seed: int = 0) -> dict[str, list[str]]:
    """Return the classes, and the images that `DomainFolder.select` chooses of each class in each domain.

    Example:
        >>> write_results(report, tables, out, results, provenance, listings=listings_of(images, 50))
    """
    cells = ((name, domain) for name in images.classes for domain in images.domains)
    return listings_of_records(record for cell in cells for record in images.select(*cell, n_images, seed))


def listings_of_records(records: Iterable[ImageRecord]) -> dict[str, list[str]]:
    """Return the classes and the images, each once, in the order of their names."""
    there = list(records)
    return {
        "classes": sorted({record.class_name for record in there}),
        "images": sorted({record.relative for record in there}),
    }
