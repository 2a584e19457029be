"""The first import of a server of processes: while it loads libraries, the user's Ctrl-C ends it at once, in silence."""

import signal

if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
