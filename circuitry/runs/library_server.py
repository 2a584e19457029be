"""The first import of a server of processes: while it loads libraries, the user's Ctrl-C ends it at once, in silence.

Looking for garbage meanwhile takes a fifth of the time, and hardly any is there; its processes begin that again.
"""

import gc
import signal

gc.disable()
if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
