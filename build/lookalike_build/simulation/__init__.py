"""Simulated experiments: records of visitors whose preferences are known, to try the report with."""
