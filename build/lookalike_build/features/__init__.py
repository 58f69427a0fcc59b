"""Features on disk: the feature store, its export as text, and features from elsewhere."""
