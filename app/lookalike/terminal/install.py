"""How to install what is missing: from where this Lookalike came, as it is on no package index."""

import json
import shlex
from importlib.metadata import PackageNotFoundError, distribution
from urllib.parse import urlsplit
from urllib.request import url2pathname


def install(extra: str) -> str:
    """What to do to have an extra, such as ``run: pip install '/opt/lookalike[serve]'``.

    Installers note where a distribution that is from no index came from: in ``direct_url.json``, which
    packaging.python.org specifies (PEP 610).
    """
    try:
        text = distribution("lookalike").read_text("direct_url.json")
    except PackageNotFoundError:
        text = None
    if text is None:
        return f"install lookalike[{extra}] from where this lookalike was installed"
    origin = json.loads(text)
    url = origin["url"]
    if "dir_info" in origin:
        editable = "--editable " if origin["dir_info"].get("editable") else ""
        what = f"{url2pathname(urlsplit(url).path)}[{extra}]"
        return f"run: pip install {editable}{shlex.quote(what)}"
    if vcs := origin.get("vcs_info"):
        url = f"{vcs['vcs']}+{url}@{vcs['commit_id']}"
    return f"run: pip install {shlex.quote(f'lookalike[{extra}] @ {url}')}"
