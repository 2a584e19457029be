"""Make this process a server that only loads libraries, and from which others are forked.

1. Looking for garbage while modules are loaded takes a fifth of the time, and hardly any is there. Processes of the
   server switch it on again.
2. The user's Ctrl-C while it loads ends it at once and without a traceback; afterwards it takes no notice of it. Nor
   does it while it loads where its parent takes none, such as a command that a shell script starts in the background.
"""

import gc
import signal

gc.disable()
if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
