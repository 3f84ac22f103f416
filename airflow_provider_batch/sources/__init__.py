"""Rows from what an author has in hand: lists, iterators, data frames and files.

source       what a source of rows is; `warehouse.read.Rows` is one, too
nanoseconds  counts of nanoseconds as Python values
plain        values of other libraries as plain Python values
records      rows from dicts and similar objects, one at a time
arrow        values of Arrow as plain Python values
parts        rows from several sources, one after another
frames       rows from data frames and Arrow tables
parquet      rows from a Parquet file
files        rows from files on object storage
open         the argument `rows`: checks it and opens the source that it stands for
function     the rows that a decorated function returns
"""
