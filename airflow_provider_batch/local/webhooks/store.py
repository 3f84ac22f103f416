"""Webhook endpoints and pending deliveries: two tables in the state directory's database.

An event is recorded in the same transaction as the end of its batch. Even if the server is killed, either both are
recorded or neither is.
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
    """`WebhookEndpoint` of the openai SDK, with its secrets. Times are Unix seconds of the server's clock."""

    id: str
    created_at: int
    event_types: list[str]
    name: str
    url: str
    #: time of the last effective change
    updated_at: int
    #: key that signs the deliveries: `whsec_` followed by base64
    secret: str
    #: the previous secret, which also signs the deliveries until `old_secret_until`
    old_secret: str = ""
    old_secret_until: float = 0.0

    def secrets_at(self, now: float) -> list[str]:
        """Return the secrets that are active at this time, newest first."""
        return [self.secret, self.old_secret] if now < self.old_secret_until else [self.secret]


class Delivery(NamedTuple):
    """One event on its way to one endpoint. Times are Unix seconds of the server's clock."""

    #: number of the delivery in its state directory
    number: int
    #: the header `webhook-id`, the same in every attempt
    id: str
    endpoint_id: str
    #: the event as JSON
    body: bytes
    created_at: float
    #: number of failed attempts
    attempts: int
    #: time of the next attempt
    due_at: float


class WebhookStore:
    """The webhooks of one state directory. All methods are fast and must be called in the event loop's thread."""

    def __init__(self, store: Store) -> None:
        self._clock = store.clock
        self._db = store.database
        self._db.executescript(_SCHEMA)
        rows = self._db.execute("SELECT body FROM webhook_endpoint ORDER BY number")
        endpoints = [msgspec.json.decode(body, type=Endpoint) for (body,) in rows]
        #: All endpoints by id, oldest first. Cached in memory, because they are needed whenever a batch ends.
        self._endpoints = {endpoint.id: endpoint for endpoint in endpoints}
        #: called with the number of each new delivery, before its transaction is committed
        self.on_delivery: Callable[[int], None] = lambda _: None
        store.on_batch_end = self._record_event

    # endpoints

    def endpoint(self, endpoint_id: str) -> Endpoint | None:
        """Return the endpoint, or None if it does not exist or was deleted."""
        return self._endpoints.get(endpoint_id)

    def endpoints(self) -> list[Endpoint]:
        """Return all endpoints, newest first."""
        return list(self._endpoints.values())[::-1]

    def add_endpoint(self, endpoint: Endpoint) -> None:
        """Record a new endpoint. It receives events from now on."""
        with self._db:
            self._db.execute(
                "INSERT INTO webhook_endpoint (id, body) VALUES (?, ?)", (endpoint.id, msgspec.json.encode(endpoint))
            )
        self._endpoints[endpoint.id] = endpoint

    def change_endpoint(self, endpoint: Endpoint, **changes: Any) -> Endpoint:
        """Change fields of an endpoint and return it. `updated_at` changes only if a field does."""
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
        """Delete an endpoint and its pending deliveries."""
        with self._db:
            self._db.execute("DELETE FROM webhook_endpoint WHERE id = ?", (endpoint_id,))
            self._db.execute("DELETE FROM webhook_delivery WHERE endpoint_id = ?", (endpoint_id,))
        self._endpoints.pop(endpoint_id, None)

    # deliveries

    def _record_event(self, batch: Batch) -> None:
        """Record a delivery to every subscribed endpoint, inside the transaction that records the end of a batch."""
        kind = f"batch.{batch.status}"
        subscribers = [endpoint for endpoint in self._endpoints.values() if kind in endpoint.event_types]
        if not subscribers:
            return
        now = self._clock.now()
        body = encode_event(kind, batch.id, created_at=batch.ended_at or int(now))
        for endpoint in subscribers:
            cursor = self._db.execute(
                "INSERT INTO webhook_delivery (id, endpoint_id, body, created_at, due_at) VALUES (?, ?, ?, ?, ?)",
                (new_webhook_id(), endpoint.id, body, now, now),
            )
            self.on_delivery(cursor.lastrowid or 0)

    def pending_deliveries(self) -> list[int]:
        """Return the numbers of all pending deliveries, oldest first."""
        return [row[0] for row in self._db.execute("SELECT number FROM webhook_delivery ORDER BY number")]

    def delivery(self, number: int) -> Delivery | None:
        """Return a pending delivery, or None if it succeeded, was given up, or was deleted with its endpoint."""
        row = self._db.execute(
            "SELECT number, id, endpoint_id, body, created_at, attempts, due_at FROM webhook_delivery WHERE number = ?",
            (number,),
        ).fetchone()
        return None if row is None else Delivery(*row)

    def postpone(self, delivery: Delivery, due_at: float) -> None:
        """Record a failed attempt, and the time of the next one."""
        with self._db:
            self._db.execute(
                "UPDATE webhook_delivery SET attempts = attempts + 1, due_at = ? WHERE number = ?",
                (due_at, delivery.number),
            )

    def remove_delivery(self, delivery: Delivery) -> None:
        """Delete a delivery that succeeded or that the server gives up."""
        with self._db:
            self._db.execute("DELETE FROM webhook_delivery WHERE number = ?", (delivery.number,))


def encode_event(kind: str, batch_id: str, *, created_at: int) -> bytes:
    """Return the JSON of an event. It contains only the batch's id; receivers fetch the batch itself."""
    body = {
        "id": f"evt_{secrets.token_hex(16)}",
        "object": "event",
        "created_at": created_at,
        "type": kind,
        "data": {"id": batch_id},
    }
    return msgspec.json.encode(body)


def new_endpoint_id() -> str:
    """Return `we_` and 32 random hexadecimal digits."""
    return f"we_{secrets.token_hex(16)}"


def new_webhook_id() -> str:
    """Return `wh_` and 32 random hexadecimal digits, like OpenAI's ids."""
    return f"wh_{secrets.token_hex(16)}"


def new_secret() -> str:
    """Return `whsec_` and 24 random bytes in base64 (Standard Webhooks, "Symmetric")."""
    return f"whsec_{base64.b64encode(secrets.token_bytes(24)).decode()}"
