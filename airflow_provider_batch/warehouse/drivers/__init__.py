"""What differs between database drivers: connections, cursors, errors."""
