"""Runs batches.

engine        moves each batch through its states
live          a batch that has not ended, in memory
validation    checks the input file of a batch, line by line
capacity      the limit on enqueued tokens, and rate limits
results       writes the result files of a batch
batch_faults  the error of a batch that fails because of a fault
"""
