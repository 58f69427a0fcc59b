"""NGINX Unit: its configuration of the app, put there and asked for over its control socket."""
