"""What the core knows about providers: their batch objects, limits, the catalogue, HTTP statuses and Retry-After."""
