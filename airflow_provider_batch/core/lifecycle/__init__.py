"""What happens next to a job: steps, attempts, queue capacity, budget, the verdict on the canary, the summary."""
