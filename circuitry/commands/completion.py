"""What completes names of commands, options and choices in a shell, by the help pages. No torch."""

from collections.abc import Mapping

from circuitry.commands.command_list import COMMANDS
from circuitry.commands.help_pages import HelpPage
from circuitry.runs.errors import InputError

SHELLS = ("bash", "zsh", "fish")
PROGRAMS = ("circuitry", "clip-circuitry")


def completion_script(pages: Mapping[str, HelpPage], shell: str) -> str:
    """Return a script for one of `SHELLS`; zsh reads that for bash.

    Raises:
        InputError: for another shell.
    """
    if shell not in SHELLS:
        raise InputError(f"Expected one of {', '.join(SHELLS)} after --completion, but {shell!r} was given.")
    if shell == "fish":
        return "\n".join(_fish(pages))
    start = ["autoload -U +X bashcompinit && bashcompinit"] if shell == "zsh" else []
    cases = [f'    {name}) words="{" ".join(page.flags)}" ;;' for name, page in pages.items()]
    return "\n".join(
        [
            *start,
            "_circuitry() {",
            '  local words="" current="${COMP_WORDS[COMP_CWORD]}"',
            f'  if [ "$COMP_CWORD" = 1 ]; then words="{" ".join(pages)} --help --version"',
            '  elif [ "${current:0:1}" = - ]; then case "${COMP_WORDS[1]}" in',
            *cases,
            "  esac; fi",
            '  COMPREPLY=($(compgen -W "$words" -- "$current"))',
            "}",
            f"complete -o bashdefault -o default -F _circuitry {' '.join(PROGRAMS)}",
        ]
    )


def _fish(pages: Mapping[str, HelpPage]) -> list[str]:
    lines = []
    for program in PROGRAMS:
        for name, page in pages.items():
            lines.append(
                f"complete -c {program} -n __fish_use_subcommand -f -a {name} -d {_quoted(COMMANDS[name].help)}"
            )
            lines += [
                f"complete -c {program} -n '__fish_seen_subcommand_from {name}' -l {flag[2:]}" for flag in page.flags
            ]
    return lines


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "\\'") + "'"
