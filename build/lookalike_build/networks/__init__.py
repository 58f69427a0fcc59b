"""Networks: photos become features.

Others use `settings.ExtractorSettings` to make one, and `extractor.Extractor` for what it does.
"""
