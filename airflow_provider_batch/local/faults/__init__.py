"""What goes wrong on request, and never by default.

    plan      `Fault`, and whom it hits: this decides
    answers   an error in place of an answer, or an answer that is spoilt (`spoil`)
    batches   how a batch fails that is told to
    calls     calls that are refused, cut off, or carried out and never answered

Lines and whole result files are damaged where they are written, in `results`.
"""
