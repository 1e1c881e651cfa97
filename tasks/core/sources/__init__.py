"""Where datasets come from: by name, from files that are downloaded, or a user's own by its path.

May import `data` and what lies before it.
Guarantees: a dataset by name has the content that was pinned; no pickle is ever read.
"""
