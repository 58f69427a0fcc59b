"""Networks: turn photos into features.

Others use `settings.ExtractorSettings` to make one, and `extractor.Extractor` as its interface.
"""
