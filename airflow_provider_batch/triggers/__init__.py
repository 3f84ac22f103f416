"""What runs in the triggerer while batches run."""
