"""Makes the application from its settings."""

import logging
import resource
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from lookalike.choice import Choice, ChoiceError
from lookalike.experiment import Experiment
from lookalike.release.root import ReleaseRoot
from lookalike.serving.application import AnswerLimits, Application
from lookalike.serving.browse.handler import Browse
from lookalike.serving.changes import ChangeHandler
from lookalike.serving.limits import raise_limit
from lookalike.serving.metrics import shared_metrics
from lookalike.serving.searches import Searches
from lookalike.serving.selections import Selections
from lookalike.serving.settings import CHOICE, ROOT, SettingError, Settings
from lookalike.serving.source import NoSource, ReleaseSource
from lookalike.terminal.output import printable

logger = logging.getLogger(__name__)


def make_application(settings: Settings) -> Application:
    """The WSGI application (PEP 3333) that `settings` describe.

    Opens the root's current release, if there is one, and starts a thread that follows the root. Until
    a release is open the application answers 503 and says why.
    """
    metrics = shared_metrics(str(settings.root))
    root = ReleaseRoot(Path(settings.root))
    source = ReleaseSource(root, metrics, settings.lock_memory)
    source.start()
    changes = ChangeHandler(
        root, source, settings.token, settings.max_photo_bytes, settings.max_pending_bytes
    )
    searches = Searches(settings.max_searches, settings.search_percent, count=metrics.searched)
    selections = Selections(settings.defaults)
    browse = None
    if settings.browse:
        browse = Browse(root, source, settings.image_url, searches, selections)
    choice, problem = _choice(settings)
    return Application(
        source,
        AnswerLimits(settings.max_limit, settings.max_age_s, settings.max_product_ids),
        changes,
        browse,
        Experiment(
            settings.experiment_key,
            settings.b_percent,
            settings.holdout_percent if choice else None,
        ),
        searches,
        choice,
        problem,
        selections,
    )


def _choice(settings: Settings) -> tuple[Choice | None, str | None]:
    """The choice that the settings name, or what is wrong with it: then all visitors are measured."""
    if settings.choice is None:
        return None, None
    try:
        return Choice.read(Path(settings.choice)), None
    except ChoiceError as error:
        way_out = "repair it and restart; until then /related assigns all visitors a pattern"
        problem = printable(f"{CHOICE.name}: {error}; {way_out}")
        logger.error("%s", problem)
        return None, problem


def application_from(environ: Mapping[str, str]) -> Application:
    """The application for the settings in `environ`; it is never ready if one of them is invalid."""
    with suppress(OSError):  # a sandbox may refuse it
        raise_limit(resource.RLIMIT_NOFILE)  # Annoy holds a file open for each category
    try:
        settings = Settings.read(environ)
    except SettingError as error:
        logger.error("%s", error)
        metrics = shared_metrics(environ.get(ROOT.name, ""))
        return Application(NoSource(str(error), metrics), AnswerLimits(max_limit=1, max_age_s=0))
    return make_application(settings)
