"""From a row to a request: templates, bodies, endpoints, preview."""
