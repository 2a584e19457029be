from .command_list import COMMANDS as COMMANDS
from .command_list import Command as Command
from .dispatch import run_command as run_command
