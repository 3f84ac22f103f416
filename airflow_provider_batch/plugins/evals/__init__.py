"""The evals over time: which reports exist, what is in the newest, all its answers, and two runs side by side."""
