"""Switch garbage collection off, in a server of processes that only loads libraries.

Looking for garbage while modules are loaded takes a fifth of the time, and hardly any is there. Processes of the server
switch it on again.
"""

import gc

gc.disable()
