"""Who is told that a batch has ended: `client.webhooks` of the real SDK, and real receivers."""

from __future__ import annotations

import json
import socket
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from openai import BadRequestError, InvalidWebhookSignatureError, NotFoundError, OpenAI
from openai.types import Batch
from openai.types.webhooks import (
    BatchCancelledWebhookEvent,
    BatchCompletedWebhookEvent,
    BatchExpiredWebhookEvent,
    BatchFailedWebhookEvent,
    WebhookEndpointWithSecret,
)

from airflow_provider_batch.local.api.objects import Batch as BatchObject
from airflow_provider_batch.local.api.objects import Status
from airflow_provider_batch.local.faults import Fault, Kind
from airflow_provider_batch.local.process import LocalServer
from airflow_provider_batch.local.storage.record import Record
from airflow_provider_batch.local.storage.store import Store
from airflow_provider_batch.local.webhooks.store import Endpoint, WebhookStore, new_secret
from tests.local.conftest import Serve, make_client
from tests.local.driving import DEADLINE, chat, chats, run, submit, wait
from tests.local.receiving import Receiver, Webhook
from tests.local.schemas import assert_fits

Running = tuple[LocalServer, OpenAI]
ALL: Any = ["batch.completed", "batch.failed", "batch.expired", "batch.cancelled"]
HOUR = 3600
DAY = 24 * HOUR


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server whose clock the tests of this file move."""
    with LocalServer(tmp_path_factory.mktemp("state"), admin=True) as started, make_client(started) as opened:
        yield started, opened


@pytest.fixture(autouse=True)
def nobody_else(running: Running) -> Iterator[None]:
    """Endpoints and faults of one test are gone before the next."""
    yield
    server, client = running
    for endpoint in client.webhooks.list():
        client.webhooks.delete(endpoint.id)
    server.set_faults()


def subscribe(client: OpenAI, url: str, event_types: Any = ALL) -> WebhookEndpointWithSecret:
    return client.webhooks.create(name="tests", url=url, event_types=event_types)


def unwrap(client: OpenAI, received: Webhook, secret: str) -> Any:
    """The event, verified as the SDK does."""
    return client.webhooks.unwrap(received.body, received.headers, secret=secret)


def verifies(client: OpenAI, received: Webhook, secret: str) -> bool:
    try:
        unwrap(client, received, secret)
    except InvalidWebhookSignatureError:
        return False
    return True


def waiting(server: LocalServer, attempts: int | None) -> list[float]:
    """Wait until each delivery was tried so often in vain, or none is left; when each is due after its creation."""
    until = time.monotonic() + DEADLINE
    while time.monotonic() < until:
        with closing(sqlite3.connect(f"file:{server.state}/state.sqlite?mode=ro", uri=True)) as state:
            rows = state.execute("SELECT attempts, due_at - created_at FROM webhook_delivery").fetchall()
        if all(tried == attempts for tried, _ in rows) and bool(rows) == (attempts is not None):
            return [due for _, due in rows]
        time.sleep(0.01)
    raise AssertionError(f"waited {DEADLINE} s for {attempts} attempts: {rows}")


def end(running: Running, status: str) -> Batch:
    """A batch that ended like this."""
    server, client = running
    if status == "completed":
        return run(client, chats(1))
    if status == "failed":
        return run(client, [{**chat("a", "x"), "url": "/v1/embeddings"}])
    server.set_faults(Fault(kind=Kind.STUCK))
    batch = wait(client, submit(client, chats(1)), lambda seen: seen.status == "in_progress")
    if status == "cancelled":
        client.batches.cancel(batch.id)
    else:
        server.advance(DAY)
    return wait(client, batch)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        ("completed", BatchCompletedWebhookEvent),
        ("failed", BatchFailedWebhookEvent),
        ("expired", BatchExpiredWebhookEvent),
        ("cancelled", BatchCancelledWebhookEvent),
    ],
)
def test_an_ended_batch_is_told_as_the_sdk_expects_it(running: Running, status: str, kind: type) -> None:
    _, client = running
    with Receiver() as receiver:
        secret = subscribe(client, receiver.url).signing_secret
        batch = end(running, status)
        assert batch.status == status
        (received,) = receiver.wait()

    told = unwrap(client, received, secret)
    assert isinstance(told, kind)
    body = json.loads(received.body)
    assert_fits(body, f"WebhookBatch{status.capitalize()}")
    assert body["id"].startswith("evt_")
    assert {**body, "id": None} == {
        "id": None,
        "object": "event",
        "type": f"batch.{status}",
        "created_at": getattr(batch, f"{status}_at"),
        "data": {"id": batch.id},
    }
    assert received.headers["content-type"] == "application/json"
    # The server's clock may be days ahead; receivers compare this one with their own.
    assert abs(int(received.headers["webhook-timestamp"]) - time.time()) < 300


def test_an_endpoint_hears_only_of_what_it_asked_for(running: Running) -> None:
    _, client = running
    with Receiver() as receiver:
        subscribe(client, receiver.url, ["batch.failed", "response.completed"])
        run(client, chats(1))
        failed = end(running, "failed")
        receiver.wait()
        waiting(running[0], None)

        assert [json.loads(received.body)["data"]["id"] for received in receiver.webhooks] == [failed.id]


def test_each_endpoint_has_a_secret_and_a_webhook_id_of_its_own(running: Running) -> None:
    _, client = running
    with Receiver() as one, Receiver() as other:
        secrets = [subscribe(client, receiver.url).signing_secret for receiver in (one, other)]
        run(client, chats(1))
        (first,), (second,) = one.wait(), other.wait()

    assert first.body == second.body
    assert first.id != second.id
    assert verifies(client, first, secrets[0])
    assert not verifies(client, first, secrets[1])


def test_what_is_not_2xx_is_tried_again_with_doubled_pauses(running: Running) -> None:
    server, client = running
    with Receiver() as elsewhere, Receiver(500, 307, 404, 204, location=elsewhere.url) as receiver:
        secret = subscribe(client, receiver.url).signing_secret
        run(client, chats(1))
        due = [0.0]
        for attempt in (1, 2, 3):
            receiver.wait(attempt)
            due += waiting(server, attempt)
            server.advance(due[-1] - due[-2])
        received = receiver.wait(4)
        waiting(server, None)

        assert elsewhere.webhooks == []
    for pause, (earlier, later) in zip((5, 10, 20), pairwise(due), strict=True):
        assert pause <= later - earlier < 2 * pause
    assert len({(one.id, one.body) for one in received}) == 1
    assert all(verifies(client, one, secret) for one in received)


def test_a_delivery_is_given_up_after_72_hours(running: Running) -> None:
    server, client = running
    with Receiver(503) as receiver:
        subscribe(client, receiver.url)
        run(client, chats(1))
        waiting(server, 1)
        server.advance(71 * HOUR)
        waiting(server, 2)
        server.advance(HOUR)
        waiting(server, None)

        assert len(receiver.webhooks) == 3


def test_a_receiver_that_hangs_holds_nothing_up(serve: Serve) -> None:
    server, client = serve()
    with Receiver(None) as hanging, Receiver() as receiver:
        for _ in range(20):
            subscribe(client, hanging.url)
        subscribe(client, receiver.url)
        batches = [run(client, chats(1)) for _ in range(3)]
        hanging.wait()

        told = {json.loads(received.body)["data"]["id"] for received in receiver.wait(3)}
        assert told == {batch.id for batch in batches}
        assert server.stop() == 0


def test_no_event_is_lost_when_the_server_is_killed(serve: Serve) -> None:
    server, client = serve()
    with Receiver(None) as receiver:
        endpoint = subscribe(client, receiver.url)
        batches = {run(client, chats(1)).id for _ in range(5)}
        before = receiver.wait()
        server.kill()
        receiver.answers = [200]
        receiver.webhooks.clear()

        server.start()
        received = receiver.wait(5)
        waiting(server, None)

    assert {json.loads(one.body)["data"]["id"] for one in received} == batches
    assert before[0].id in {one.id for one in received}
    assert all(verifies(client, one, endpoint.signing_secret) for one in received)


def test_the_end_of_a_batch_and_its_event_are_there_together_or_not_at_all(tmp_path: Path) -> None:
    with closing(Store(tmp_path)) as store:
        webhooks = WebhookStore(store)
        webhooks.add_endpoint(
            Endpoint(id="we_1", created_at=0, event_types=ALL, name="", url="", updated_at=0, secret=new_secret())
        )
        live = BatchObject(
            id="batch_1", endpoint="", input_file_id="", completion_window="", created_at=0, expires_at=1
        )
        record = Record(batch=live, number=1, output_lifetime=0)
        store.add_batch(record)
        ended = replace(record, batch=replace(live, status=Status.EXPIRED, expired_at=1))

        def break_off(_: int) -> None:
            raise InterruptedError

        webhooks.on_delivery = break_off
        with pytest.raises(InterruptedError):
            store.save_batch(ended)

        assert store.batch("batch_1") == live
        assert webhooks.pending_deliveries() == []
        webhooks.on_delivery = lambda _: None
        store.save_batch(ended)
        assert webhooks.pending_deliveries() == [1]


def test_a_receiver_that_was_away_hears_of_it_later(running: Running) -> None:
    server, client = running
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    subscribe(client, f"http://localhost:{port}/webhook")
    batch = run(client, chats(1))
    waiting(server, 1)

    with Receiver(port=port) as receiver:
        server.advance(HOUR)
        (received,) = receiver.wait()

    assert json.loads(received.body)["data"]["id"] == batch.id


def test_webhooks_arrive_twice_on_request(serve: Serve) -> None:
    server, client = serve(webhook_duplicates=0.5)
    with Receiver() as receiver:
        for _ in range(20):
            subscribe(client, receiver.url)
        run(client, chats(1))
        receiver.wait(20)
        waiting(server, None)
        ids = [received.id for received in receiver.webhooks]

    assert len(set(ids)) == 20
    assert {ids.count(one) for one in ids} == {1, 2}


def test_an_endpoint_is_kept_changed_and_deleted(serve: Serve) -> None:
    server, client = serve(admin=True)
    made = subscribe(client, "http://127.0.0.1:9/a", ["batch.failed", "batch.failed"])
    assert made.signing_secret.startswith("whsec_")
    assert made.signing_secret_hint == f"whsec_****{made.signing_secret[-4:]}"
    assert (made.object, made.event_types, made.updated_at) == ("webhook_endpoint", ["batch.failed"], made.created_at)
    server.kill()
    server.start()
    server.advance(100)

    kept = client.webhooks.retrieve(made.id)
    assert kept.to_dict() == {key: value for key, value in made.to_dict().items() if key != "signing_secret"}
    assert client.webhooks.update(made.id, name="tests", event_types=["batch.failed"]) == kept
    changed = client.webhooks.update(made.id, url="http://127.0.0.1:9/b", event_types=["batch.expired"])
    assert (changed.name, changed.url, changed.event_types) == ("tests", "http://127.0.0.1:9/b", ["batch.expired"])
    assert changed.created_at == made.created_at
    assert (changed.updated_at or 0) >= made.created_at + 100
    deleted = client.webhooks.delete(made.id)
    assert (deleted.id, deleted.object, deleted.deleted) == (made.id, "webhook_endpoint.deleted", True)
    for gone in (
        lambda: client.webhooks.retrieve(made.id),
        lambda: client.webhooks.update(made.id, name="x"),
        lambda: client.webhooks.delete(made.id),
        lambda: client.webhooks.rotate_secret(made.id),
        lambda: client.webhooks.test(made.id, event_type="batch.failed"),
        lambda: client.webhooks.list(after=made.id),
    ):
        with pytest.raises(NotFoundError, match=f"No webhook endpoint found with id '{made.id}'"):
            gone()


def test_what_waits_goes_to_the_new_url_or_goes_with_its_endpoint(running: Running) -> None:
    server, client = running
    with Receiver(500) as old, Receiver() as new:
        moved, deleted = subscribe(client, old.url), subscribe(client, old.url)
        run(client, chats(1))
        waiting(server, 1)
        client.webhooks.update(moved.id, url=new.url)
        client.webhooks.delete(deleted.id)
        assert len(waiting(server, 1)) == 1

        server.advance(HOUR)
        (received,) = new.wait()

        assert verifies(client, received, moved.signing_secret)
        assert len(old.webhooks) == 2


def test_endpoints_are_listed_newest_first_by_pages(running: Running) -> None:
    _, client = running
    ids = [subscribe(client, "http://127.0.0.1:9/").id for _ in range(5)]

    assert [endpoint.id for endpoint in client.webhooks.list(limit=2)] == ids[::-1]
    first = client.webhooks.list(limit=2)
    assert (len(first.data), first.has_more) == (2, True)
    assert client.webhooks.list().has_more is False
    for limit in (0, 101):
        with pytest.raises(BadRequestError):
            client.webhooks.list(limit=limit)


def test_a_rotated_secret_replaces_the_old_one(running: Running) -> None:
    _, client = running
    with Receiver() as receiver:
        endpoint = subscribe(client, receiver.url)
        new = client.webhooks.rotate_secret(endpoint.id).signing_secret
        # As in the published sample, without a body.
        newest = client.post(f"/webhook_endpoints/{endpoint.id}/rotate_secret", cast_to=WebhookEndpointWithSecret)
        run(client, chats(1))
        (received,) = receiver.wait()

    secrets = [endpoint.signing_secret, new, newest.signing_secret]
    assert [verifies(client, received, one) for one in secrets] == [False, False, True]


def test_a_rotated_secret_may_stay_active_for_24_hours(running: Running) -> None:
    server, client = running
    with Receiver() as receiver:
        endpoint = subscribe(client, receiver.url)
        new = client.webhooks.rotate_secret(endpoint.id, keep_old_secret_active_for_24_hours=True).signing_secret
        run(client, chats(1))
        receiver.wait()
        server.advance(DAY)
        run(client, chats(1))
        within, after = receiver.wait(2)

    assert [verifies(client, within, one) for one in (endpoint.signing_secret, new)] == [True, True]
    assert [verifies(client, after, one) for one in (endpoint.signing_secret, new)] == [False, True]


def test_a_sample_event_can_be_sent(running: Running) -> None:
    _, client = running
    with Receiver(200, 503) as receiver:
        endpoint = subscribe(client, receiver.url, ["batch.failed"])
        results = [client.webhooks.test(endpoint.id, event_type="batch.expired") for _ in range(2)]

        assert [(one.status_code, one.success, one.event_type) for one in results] == [
            (200, True, "batch.expired"),
            (503, True, "batch.expired"),
        ]
        assert {(one.object, one.webhook_endpoint_id) for one in results} == {("webhook_endpoint.test", endpoint.id)}
        told = unwrap(client, receiver.webhooks[0], endpoint.signing_secret)
        assert isinstance(told, BatchExpiredWebhookEvent)
    with pytest.raises(BadRequestError, match=f"could not be delivered to {receiver.url}: ConnectError"):
        client.webhooks.test(endpoint.id, event_type="batch.expired")
    with pytest.raises(BadRequestError) as refused:
        client.webhooks.test(endpoint.id, event_type="response.completed")
    assert refused.value.param == "event_type"


def test_the_event_types_that_occur_are_listed(client: OpenAI) -> None:
    assert client.webhooks.event_types.list().data == ALL


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com/webhook",
        "https://10.0.0.1/webhook",
        "http://0.0.0.0/webhook",
        "http://localhost.example.com/",
        "http://127.0.0.1@example.com/",
        "http://example.com#@127.0.0.1/",
        "http://example.com\\@127.0.0.1/",
        "http://key@127.0.0.1/",
        "ftp://127.0.0.1/",
        "http://[::1/",
        "//127.0.0.1/",
        "webhook",
        "",
    ],
)
def test_no_receiver_is_elsewhere(client: OpenAI, url: str) -> None:
    with pytest.raises(BadRequestError, match="localhost or a loopback address") as refused:
        subscribe(client, url)

    assert refused.value.param == "url"


@pytest.mark.parametrize("url", ["http://localhost:9/", "https://127.8.9.1/a?b=c", "http://[::1]:9/"])
def test_a_receiver_may_be_anywhere_on_this_computer(running: Running, url: str) -> None:
    assert subscribe(running[1], url).url == url


@pytest.mark.parametrize(
    ("wrong", "param"),
    [
        ({"name": None}, "name"),
        ({"name": ""}, "name"),
        ({"name": 5}, "name"),
        ({"url": None}, "url"),
        ({"url": 5}, "url"),
        ({"event_types": None}, "event_types"),
        ({"event_types": "batch.failed"}, "event_types"),
        ({"event_types": []}, "event_types"),
        ({"event_types": ["batch.failed", "batch.late"]}, "event_types[1]"),
        ({"event_types": [{}]}, "event_types[0]"),
        ({"secret": "mine"}, "secret"),
    ],
)
def test_create_refuses_what_the_sdk_would_not_send(client: OpenAI, wrong: dict[str, Any], param: str) -> None:
    right = {"name": "tests", "url": "http://127.0.0.1:9/", "event_types": ["batch.failed"]}
    with pytest.raises(BadRequestError) as refused:
        client.post("/webhook_endpoints", body={**right, **wrong}, cast_to=object)

    assert refused.value.param == param
    assert_fits(refused.value.response.json(), "ErrorResponse")
