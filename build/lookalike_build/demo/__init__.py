"""The demo behind ``make demo``: drawn products through the whole pipeline, then served."""
