from .dispatch import COMMANDS as COMMANDS
from .dispatch import run_command as run_command
