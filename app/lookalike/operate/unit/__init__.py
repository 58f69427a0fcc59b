"""``lookalike unit``: configures NGINX Unit for the app and shows how it is served.

Others use `config`, `control` and `private`.
"""

from lookalike.terminal.command import Group

run = Group(
    "unit",
    "Configure NGINX Unit for the app, and see how the app is served there.",
    __name__,
    {
        "apply": "Put a configuration file into what Unit has, beside whatever else Unit serves.",
        "status": "Show what Unit and the app say of themselves.",
    },
)
