"""The provider as the rest of the core sees it: batches, limits, the catalogue of providers, Retry-After."""
