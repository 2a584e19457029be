"""Command lines of the scripts: settings from a dataclass, errors of input in one sentence without a traceback."""

import errno
import logging
import sys
from collections.abc import Callable
from typing import TypeVar

import tyro

from circuitry.runs.errors import InputError

Config = TypeVar("Config")


def run_script(
    config_type: type[Config],
    main: Callable[[Config], None],
    description: str | None,
    default: Callable[[], Config] | None = None,
) -> None:
    """Read ``config_type`` from the command line, with its own defaults or those made here, and run ``main`` with it.

    Input errors end the process with status 2 and their message, as does a full disk; an interrupt with status 130
    and a word on how to go on.
    """
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    logging.getLogger().handlers[0].addFilter(lambda record: "No pretrained weights loaded" not in record.getMessage())
    try:
        given = tyro.MISSING_NONPROP if default is None else default()
        main(tyro.cli(config_type, description=description, default=given))
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        where = f" of {error.filename}" if error.filename else ""
        print(
            f"error: the disk{where} is full: free some space, and the same command goes on from what is finished",
            file=sys.stderr,
        )
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from what is finished", file=sys.stderr)
        sys.exit(130)
