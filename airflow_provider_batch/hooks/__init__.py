"""The provider's client, as a job needs it."""
