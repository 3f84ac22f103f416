"""One job: its details, live counts, answers, rows that did not succeed, and the decisions of a person."""
