"""What NGINX Unit and the embedded server load: `application`, set up from the environment.

Nothing here raises: an app that fails at import can take every listener of a Unit down with it
(github.com/nginx/unit issue 367). What is wrong is answered as 503 and logged.
"""

import os

# Processes share the work; threads inside one answer would only stand in each other's way. NumPy reads
# this when it is first imported.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import logging

from lookalike.application import Application
from lookalike.browse import Browse
from lookalike.changes import Changes
from lookalike.experiment import Experiment
from lookalike.limits import raise_open_files
from lookalike.log import log_to_stderr
from lookalike.metrics import shared_metrics
from lookalike.root import ReleaseRoot
from lookalike.searches import Searches
from lookalike.settings import ROOT, SettingError, Settings
from lookalike.source import NoSource, ReleaseSource


def make_application() -> Application:
    """The application for the settings in the environment; never ready if they are unfit."""
    metrics = shared_metrics(os.environ.get(ROOT.name, ""))
    try:
        settings = Settings.read(os.environ)
    except SettingError as error:
        logging.getLogger("lookalike").error("%s", error)
        return Application(NoSource(str(error), metrics), max_limit=1, max_age_s=0)
    root = ReleaseRoot(settings.root)
    source = ReleaseSource(root, metrics, settings.lock_memory)
    source.start()
    changes = Changes(root, source, settings.token, settings.max_photo_bytes)
    browse = Browse(root, source, settings.image_url) if settings.browse else None
    return Application(
        source,
        settings.max_limit,
        settings.max_age_s,
        settings.max_product_ids,
        changes,
        browse,
        Experiment(settings.experiment_key, settings.b_percent),
        Searches(settings.max_searches, settings.search_percent),
    )


log_to_stderr()
raise_open_files()
application = make_application()
