"""Where a job lies: on a local disk or in an object store."""
