"""Who wants to be told of ended batches, and what is still to be told: two tables in the state's database.

An event is recorded in the transaction that ends its batch: a kill loses neither, and neither is there alone.
"""

from __future__ import annotations

import base64
import secrets
from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec

from airflow_provider_batch.local.api.objects import Batch
from airflow_provider_batch.local.storage.store import Store

_SCHEMA = """
CREATE TABLE IF NOT EXISTS webhook_endpoint (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    body BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS webhook_delivery (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL,
    endpoint_id TEXT NOT NULL,
    body BLOB NOT NULL,
    created_at REAL NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,
    due_at REAL NOT NULL
);
CREATE INDEX IF NOT EXISTS webhook_delivery_of ON webhook_delivery (endpoint_id);
"""


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """`WebhookEndpoint` of the openai SDK, and its secrets. Times are Unix seconds of the server's clock."""

    id: str
    created_at: int
    event_types: list[str]
    name: str
    url: str
    #: of the last change that changed something
    updated_at: int
    #: `whsec_` and base64; what its deliveries are signed with
    secret: str
    #: the one before, with which they are signed as well until `old_secret_until`
    old_secret: str = ""
    old_secret_until: float = 0.0

    def secrets_at(self, now: float) -> list[str]:
        """The secrets that are active at this time, the newest first."""
        return [self.secret, self.old_secret] if now < self.old_secret_until else [self.secret]


class Delivery(NamedTuple):
    """One event on its way to one endpoint. Times are Unix seconds of the server's clock."""

    #: counts the deliveries of a state directory
    number: int
    #: the header `webhook-id`, the same on every attempt
    id: str
    endpoint_id: str
    #: the event as it is sent
    body: bytes
    created_at: float
    #: how often it was tried in vain
    attempts: int
    #: when the next attempt is
    due_at: float


class WebhookStore:
    """The webhooks of one state directory. All methods are short and belong to the event loop's thread."""

    def __init__(self, store: Store) -> None:
        self._clock = store.clock
        self._db = store.database
        self._db.executescript(_SCHEMA)
        rows = self._db.execute("SELECT body FROM webhook_endpoint ORDER BY number")
        known = [msgspec.json.decode(body, type=Endpoint) for (body,) in rows]
        #: by id, oldest first; asked whenever a batch ends, so they are kept in memory too
        self._endpoints = {endpoint.id: endpoint for endpoint in known}
        #: called with the number of each new delivery, before its transaction has ended
        self.on_delivery: Callable[[int], None] = lambda _: None
        store.on_end = self._tell

    # endpoints

    def endpoint(self, endpoint_id: str) -> Endpoint | None:
        """The endpoint, or None if it is unknown or deleted."""
        return self._endpoints.get(endpoint_id)

    def endpoints(self) -> list[Endpoint]:
        """All endpoints, newest first."""
        return list(self._endpoints.values())[::-1]

    def add_endpoint(self, endpoint: Endpoint) -> None:
        """Record a new endpoint; it is told of what happens from now on."""
        with self._db:
            self._db.execute(
                "INSERT INTO webhook_endpoint (id, body) VALUES (?, ?)", (endpoint.id, msgspec.json.encode(endpoint))
            )
        self._endpoints[endpoint.id] = endpoint

    def change_endpoint(self, endpoint: Endpoint, **changes: Any) -> Endpoint:
        """Record changes of an endpoint; without any, nothing is touched."""
        changed = msgspec.structs.replace(endpoint, **changes)
        if changed != endpoint:
            changed = msgspec.structs.replace(changed, updated_at=self._clock.seconds())
            with self._db:
                self._db.execute(
                    "UPDATE webhook_endpoint SET body = ? WHERE id = ?", (msgspec.json.encode(changed), changed.id)
                )
            self._endpoints[changed.id] = changed
        return changed

    def delete_endpoint(self, endpoint_id: str) -> None:
        """Forget an endpoint and what it was still to be told."""
        with self._db:
            self._db.execute("DELETE FROM webhook_endpoint WHERE id = ?", (endpoint_id,))
            self._db.execute("DELETE FROM webhook_delivery WHERE endpoint_id = ?", (endpoint_id,))
        self._endpoints.pop(endpoint_id, None)

    # deliveries

    def _tell(self, batch: Batch) -> None:
        """Record what the end of a batch lets go out, as part of the transaction that ends it."""
        kind = f"batch.{batch.status}"
        wanting = [endpoint for endpoint in self._endpoints.values() if kind in endpoint.event_types]
        if not wanting:
            return
        now = self._clock.now()
        body = event(kind, batch.id, created_at=batch.ended_at or int(now))
        for endpoint in wanting:
            added = self._db.execute(
                "INSERT INTO webhook_delivery (id, endpoint_id, body, created_at, due_at) VALUES (?, ?, ?, ?, ?)",
                (new_webhook_id(), endpoint.id, body, now, now),
            )
            self.on_delivery(added.lastrowid or 0)

    def waiting(self) -> list[int]:
        """The numbers of all deliveries that are still to be made, oldest first."""
        return [row[0] for row in self._db.execute("SELECT number FROM webhook_delivery ORDER BY number")]

    def delivery(self, number: int) -> Delivery | None:
        """The delivery, or None if it was made or given up."""
        row = self._db.execute(
            "SELECT number, id, endpoint_id, body, created_at, attempts, due_at FROM webhook_delivery WHERE number = ?",
            (number,),
        ).fetchone()
        return None if row is None else Delivery(*row)

    def postpone(self, delivery: Delivery, due_at: float) -> None:
        """Record that an attempt was in vain, and when the next is."""
        with self._db:
            self._db.execute(
                "UPDATE webhook_delivery SET attempts = attempts + 1, due_at = ? WHERE number = ?",
                (due_at, delivery.number),
            )

    def finish(self, delivery: Delivery) -> None:
        """Forget a delivery, as it was made or is given up."""
        with self._db:
            self._db.execute("DELETE FROM webhook_delivery WHERE number = ?", (delivery.number,))


def event(kind: str, batch_id: str, *, created_at: int) -> bytes:
    """An event's body: it carries the batch's id alone, the rest is to be fetched."""
    body = {
        "id": f"evt_{secrets.token_hex(16)}",
        "object": "event",
        "created_at": created_at,
        "type": kind,
        "data": {"id": batch_id},
    }
    return msgspec.json.encode(body)


def new_endpoint_id() -> str:
    """`we_` and 32 hexadecimal characters."""
    return f"we_{secrets.token_hex(16)}"


def new_webhook_id() -> str:
    """`wh_` and 32 hexadecimal characters, as OpenAI's header looks."""
    return f"wh_{secrets.token_hex(16)}"


def new_secret() -> str:
    """`whsec_` and 24 random bytes in base64 (Standard Webhooks, "Symmetric")."""
    return f"whsec_{base64.b64encode(secrets.token_bytes(24)).decode()}"
