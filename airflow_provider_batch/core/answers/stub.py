"""How answers that no model wrote are labelled: those of the offline responder of the local batch server."""

from __future__ import annotations

#: start of the model name in such an answer; the requested model follows
STUB_PREFIX = "offline-responder/"
