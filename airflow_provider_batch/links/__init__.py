"""Links from a task to the page of its job and to its report."""
