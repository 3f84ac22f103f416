"""Rendering rows into requests: templates, request bodies, endpoints, previews."""
