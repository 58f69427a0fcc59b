"""Live changes: what the journal holds becomes a release within seconds.

Others use `follower.Follower` and `follower.follow`, `feed.open_feed` and `status.follow_report`.
"""
