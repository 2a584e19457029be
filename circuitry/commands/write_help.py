"""Write the help pages again after a change of options: ``python -m circuitry.commands.write_help``.

A page has what tyro reads from a class of settings, in groups by the class that declares an option, and what the
annotations ask for. A class of settings may also say which options exclude each other (`NOT_BOTH`), which need others
(`NEEDS`), and that one of some is needed (`ONE_OF`).
"""

import importlib
import re
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import MISSING, Field, fields, is_dataclass
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import tyro

from circuitry.commands.command_list import COMMANDS, module_of
from circuitry.commands.help_pages import GENERAL, HELP_PAGES, HelpPage, Option, page_json
from circuitry.runs import StudySettings
from circuitry.runs.command_line import STUDY_HELP, General
from circuitry.runs.files import whole_file
from circuitry.runs.given import Condition


def made_page(name: str) -> HelpPage:
    """Return the help of a command as its options make it now."""
    module = importlib.import_module(module_of(name))
    settings = module.Config
    own = [_option(action, *_declared(settings, action.dest)) for action in _actions(settings)]
    groups = sorted(dict.fromkeys(one.group for one in own), key=lambda group: _place(group, settings, own))
    options = [option for group in groups for option in own if option.group == group]
    if issubclass(settings, StudySettings):
        options.append(Option(("--study",), "As the study did it", STUDY_HELP))
    taken = {option.name for option in own}
    general = [_option(action, General, Any) for action in _actions(General)]
    options += [one._replace(flags=one.flags[:1], group=GENERAL) for one in general if one.name not in taken]
    rules = (_rules(settings, rule) for rule in ("NOT_BOTH", "ONE_OF", "NEEDS"))
    return HelpPage(name, str(module.__doc__).strip(), tuple(options), *rules)


def _place(group: str, settings: type[Any], options: Sequence[Option]) -> int:
    """Return where a group stands: the model first, then what is required or the command's own, then the others."""
    its = [one for one in options if one.group == group]
    if any(one.name == "--model" for one in its):
        return 0
    return 1 if group == _words_of(settings) or any(one.required for one in its) else 2


def _words_of(settings: type[Any]) -> str:
    """Return the name of the group of a class's options: the first words of its docstring."""
    return re.split(r"[.:;]", str(settings.__doc__))[0]


def _actions(settings: type[Any]) -> Iterator[Any]:
    """Yield what tyro makes of settings: its own copies of argparse's actions."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        parser = tyro.extras.get_parser(settings)
    for action in parser._actions:
        if action.dest != "help":
            yield action


def _declared(settings: type[Any], path: str) -> tuple[type[Any], Any]:
    """Return the class that declares an option, and its annotation."""
    head, _, rest = path.partition(".")
    field = next(field for field in fields(settings) if field.name == head.replace("-", "_"))
    if rest:
        return _declared(type(_default(field)), rest)
    declaring = [kind for kind in settings.__mro__ if field.name in vars(kind).get("__annotations__", {})]
    return declaring[-1], get_type_hints(settings, include_extras=True)[field.name]


def _default(field: "Field[Any]") -> Any:
    return field.default if field.default_factory is MISSING else field.default_factory()


def _option(action: Any, owner: type[Any], hint: Any) -> Option:
    takes = str(action.metavar or "").replace("{None}|", "").replace("{None,", "{")
    several = re.fullmatch(r"\{((?:\w+ )+\w+)\}", takes)  # such as {STR STR STR}
    takes = re.sub(r"\{?\[(\S+) \[\S+ \.\.\.\]\]\}?", r"[\1 ...]", takes[1:-1] if takes.startswith("[[") else takes)
    takes = several[1] if several else takes.replace("} [...]]", "} ...]")
    condition = next(_conditions(hint), None)
    taken = condition.taken if condition is not None else ()
    words = tuple(re.findall(r"[^{},\[\]]+", takes.partition(" [")[0].rstrip("]"))) if action.choices else ()
    if words or (taken and isinstance(taken[0], str)):
        choices = "{" + ",".join(map(str, taken or words)) + "}"
        takes = re.sub(r"STR|\{.*?\}", lambda _: choices, takes, count=1)
    return Option(
        tuple(action.option_strings) or (action.dest,),
        _words_of(owner),
        re.sub(
            r"\s*\((default:\s*(None|False)?|required)\)", "", " ".join(str(action.help).replace("%%", "%").split())
        ),
        takes,
        len(several[1].split()) if several else None if action.nargs == "*" else int(action.nargs or 0),
        "{None" in str(action.metavar),
        action.required,
        "" if condition is None or words else condition.wanted,
        taken or words,
    )


def _conditions(hint: Any) -> Iterator[Condition]:
    """Yield what an annotation asks for that a word of a command line can be held against."""
    for mark in getattr(hint, "__metadata__", ()):
        if isinstance(mark, Condition) and mark.taken:
            yield mark
    inner = get_args(hint)
    for one in inner[:1] if get_origin(hint) is Annotated else inner:
        yield from _conditions(one)


def _rules(settings: type[Any], rule: str) -> tuple[tuple[str, ...], ...]:
    """Return the rules of a kind of a class of settings and all that it inherits from, and of settings in it."""
    found = [one for kind in settings.__mro__ for one in vars(kind).get(rule, ())]
    for field in fields(settings):
        if is_dataclass(field.default):
            found += _rules(type(field.default), rule)
    return tuple(tuple(f"--{name}" for name in one) for one in found)


if __name__ == "__main__":
    for command_name in COMMANDS:
        with whole_file(HELP_PAGES / f"{command_name}.json") as temporary:
            temporary.write_text(page_json(made_page(command_name)), encoding="utf-8")
