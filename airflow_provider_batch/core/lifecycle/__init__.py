"""The policy of a job: what happens next, attempts, queue capacity, budget, the canary's verdict, the summary."""
