"""The demo behind ``make demo``: drawn products go through the whole pipeline and are served."""
