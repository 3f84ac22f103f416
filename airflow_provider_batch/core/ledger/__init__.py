"""What a job is and what is recorded of it: folder, job, records, the fold into a state, the ledger."""
