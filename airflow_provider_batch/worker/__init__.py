"""Does the steps that the lifecycle decides on."""
