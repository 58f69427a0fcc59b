"""The experiment: records of what visitors were shown and did become a report.

Others use `records.read_records` and `report.report_of`; `text`, `html` and `json` render a report.
"""
