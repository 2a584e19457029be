"""The first module that the server process of a `process_pool` imports, before it loads libraries.

Importing this module has two effects. First, the user's Ctrl-C ends the server at once and without a traceback.
Second, garbage collection is turned off: it would take a fifth of the time for loading, and find hardly any garbage.
The processes that are forked from the server turn garbage collection on again.
"""

import gc
import signal

gc.disable()
if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
