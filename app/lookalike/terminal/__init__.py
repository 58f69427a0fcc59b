"""What both commands share: how they take their arguments and what they print."""
