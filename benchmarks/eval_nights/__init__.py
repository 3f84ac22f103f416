"""How reliably the gate of an eval finds regressions, and how many false alarms it raises: `make bench`."""
