"""From requests to sealed shards: duplicates, reuse, uniqueness."""
