"""What the drivers of a database need: connections, cursors, errors."""
