"""Live changes: the follower turns the changes in the journal into releases within seconds.

Others use `follower.Follower` and `follower.follow`, `feed.open_feed` and `status.report`.
"""
