"""What the embedded server loads: `application`. A worker ends when the server's main process does."""

import multiprocessing
import os
import signal
import threading

from lookalike.serving.asgi import Asgi
from lookalike.wsgi import application as _wsgi


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()  # however it ended
        os.kill(os.getpid(), signal.SIGKILL)


threading.Thread(target=_end_with_parent, name="lookalike-parent", daemon=True).start()
application = Asgi(_wsgi)
