"""Features: the feature store, its export as text, and features of other programs or in memory."""
