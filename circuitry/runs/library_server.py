"""Make this process a server that only loads libraries, and from which others are forked.

1. Looking for garbage while modules are loaded takes a fifth of the time, and hardly any is there. Processes of the
   server switch it on again.
2. The user's Ctrl-C while it loads ends it at once and without a traceback; afterwards it takes no notice of it.
"""

import gc
import signal

gc.disable()
signal.signal(signal.SIGINT, signal.SIG_DFL)
