"""The record of a job: its folder, its manifest, its records, the state they amount to, and the ledger itself."""
