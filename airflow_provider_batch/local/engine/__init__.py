"""Runs batches.

engine        moves each batch through its states
live          a batch that has not ended, in memory
validation    checks a batch's input file, line by line
capacity      rate limits, and how many tokens may wait
results       writes the result files of a batch
batch_faults  the error of a batch that fails on request
"""
