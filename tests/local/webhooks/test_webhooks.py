"""Webhooks about ended batches, with `client.webhooks` of the real SDK and real receivers."""

from __future__ import annotations

import json
import socket
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from msgspec.structs import replace
from openai import BadRequestError, InvalidWebhookSignatureError, NotFoundError, OpenAI
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

if TYPE_CHECKING:
    from openai.types import Batch

ServerAndClient = tuple[LocalServer, OpenAI]
ALL_EVENT_TYPES: Any = ["batch.completed", "batch.failed", "batch.expired", "batch.cancelled"]
HOUR = 3600
DAY = 24 * HOUR


@pytest.fixture(scope="module")
def server_and_client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerAndClient]:
    """A server whose clock the tests in this file move."""
    with LocalServer(tmp_path_factory.mktemp("state"), admin=True) as server, make_client(server) as client:
        yield server, client


@pytest.fixture(autouse=True)
def remove_endpoints_and_faults(server_and_client: ServerAndClient) -> Iterator[None]:
    """Remove the endpoints and faults of each test."""
    yield
    server, client = server_and_client
    for endpoint in client.webhooks.list():
        client.webhooks.delete(endpoint.id)
    server.set_faults()


def subscribe(client: OpenAI, url: str, event_types: Any = ALL_EVENT_TYPES) -> WebhookEndpointWithSecret:
    return client.webhooks.create(name="tests", url=url, event_types=event_types)


def unwrap(client: OpenAI, webhook: Webhook, secret: str) -> Any:
    """Verify a webhook with the SDK and return its event."""
    return client.webhooks.unwrap(webhook.body, webhook.headers, secret=secret)


def verifies(client: OpenAI, webhook: Webhook, secret: str) -> bool:
    try:
        unwrap(client, webhook, secret)
    except InvalidWebhookSignatureError:
        return False
    return True


def wait_for_attempts(server: LocalServer, attempts: int | None) -> list[float]:
    """Wait until each delivery has this number of failed attempts, or until none is pending if that is None.

    Return the seconds from the creation of each delivery to its next attempt.
    """
    deadline = time.monotonic() + DEADLINE
    while time.monotonic() < deadline:
        with closing(sqlite3.connect(f"file:{server.state}/state.sqlite?mode=ro", uri=True)) as state:
            rows = state.execute("SELECT attempts, due_at - created_at FROM webhook_delivery").fetchall()
        if all(failed_attempts == attempts for failed_attempts, _ in rows) and bool(rows) == (attempts is not None):
            return [due for _, due in rows]
        time.sleep(0.01)
    raise AssertionError(f"waited {DEADLINE} s for {attempts} attempts: {rows}")


def end_batch(server_and_client: ServerAndClient, status: str) -> Batch:
    """Run a batch that ends with this status."""
    server, client = server_and_client
    if status == "completed":
        return run(client, chats(1))
    if status == "failed":
        return run(client, [{**chat("a", "x"), "url": "/v1/embeddings"}])
    server.set_faults(Fault(kind=Kind.STUCK))
    batch = wait(client, submit(client, chats(1)), lambda batch: batch.status == "in_progress")
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
def test_the_sdk_can_verify_and_parse_the_event_of_an_ended_batch(
    server_and_client: ServerAndClient, status: str, kind: type
) -> None:
    _, client = server_and_client
    with Receiver() as receiver:
        secret = subscribe(client, receiver.url).signing_secret
        batch = end_batch(server_and_client, status)
        assert batch.status == status
        (webhook,) = receiver.wait()

    event = unwrap(client, webhook, secret)
    assert isinstance(event, kind)
    body = json.loads(webhook.body)
    assert_fits(body, f"WebhookBatch{status.capitalize()}")
    assert body["id"].startswith("evt_")
    assert {**body, "id": None} == {
        "id": None,
        "object": "event",
        "type": f"batch.{status}",
        "created_at": getattr(batch, f"{status}_at"),
        "data": {"id": batch.id},
    }
    assert webhook.headers["content-type"] == "application/json"
    # This header uses real time, because receivers compare it with their own clock. The server's may be days ahead.
    assert abs(int(webhook.headers["webhook-timestamp"]) - time.time()) < 300


def test_an_endpoint_receives_only_the_events_it_subscribes_to(server_and_client: ServerAndClient) -> None:
    _, client = server_and_client
    with Receiver() as receiver:
        subscribe(client, receiver.url, ["batch.failed", "response.completed"])
        run(client, chats(1))
        failed = end_batch(server_and_client, "failed")
        receiver.wait()
        wait_for_attempts(server_and_client[0], None)

        assert [json.loads(webhook.body)["data"]["id"] for webhook in receiver.webhooks] == [failed.id]


def test_each_endpoint_has_its_own_secret_and_webhook_ids(server_and_client: ServerAndClient) -> None:
    _, client = server_and_client
    with Receiver() as receiver, Receiver() as other_receiver:
        secrets = [subscribe(client, url).signing_secret for url in (receiver.url, other_receiver.url)]
        run(client, chats(1))
        (first,), (second,) = receiver.wait(), other_receiver.wait()

    assert first.body == second.body
    assert first.id != second.id
    assert verifies(client, first, secrets[0])
    assert not verifies(client, first, secrets[1])


def test_a_delivery_without_2xx_is_retried_with_doubled_pauses(server_and_client: ServerAndClient) -> None:
    server, client = server_and_client
    with Receiver() as redirect_target, Receiver(500, 307, 404, 204, location=redirect_target.url) as receiver:
        secret = subscribe(client, receiver.url).signing_secret
        run(client, chats(1))
        due = [0.0]
        for attempt in (1, 2, 3):
            receiver.wait(attempt)
            due += wait_for_attempts(server, attempt)
            server.advance(due[-1] - due[-2])
        webhooks = receiver.wait(4)
        wait_for_attempts(server, None)

        assert redirect_target.webhooks == []
    for pause, (earlier, later) in zip((5, 10, 20), pairwise(due), strict=True):
        assert pause <= later - earlier < 2 * pause
    assert len({(webhook.id, webhook.body) for webhook in webhooks}) == 1
    assert all(verifies(client, webhook, secret) for webhook in webhooks)


def test_a_delivery_is_given_up_after_72_hours(server_and_client: ServerAndClient) -> None:
    server, client = server_and_client
    with Receiver(503) as receiver:
        subscribe(client, receiver.url)
        run(client, chats(1))
        wait_for_attempts(server, 1)
        server.advance(71 * HOUR)
        wait_for_attempts(server, 2)
        server.advance(HOUR)
        wait_for_attempts(server, None)

        assert len(receiver.webhooks) == 3


def test_a_receiver_that_hangs_does_not_delay_others(serve: Serve) -> None:
    server, client = serve()
    with Receiver(None) as hanging, Receiver() as receiver:
        for _ in range(20):
            subscribe(client, hanging.url)
        subscribe(client, receiver.url)
        batches = [run(client, chats(1)) for _ in range(3)]
        hanging.wait()

        delivered_ids = {json.loads(webhook.body)["data"]["id"] for webhook in receiver.wait(3)}
        assert delivered_ids == {batch.id for batch in batches}
        assert server.stop() == 0


def test_no_event_is_lost_if_the_server_is_killed(serve: Serve) -> None:
    server, client = serve()
    with Receiver(None) as receiver:
        endpoint = subscribe(client, receiver.url)
        batches = {run(client, chats(1)).id for _ in range(5)}
        earlier = receiver.wait()
        server.kill()
        receiver.answers = [200]
        receiver.webhooks.clear()

        server.start()
        webhooks = receiver.wait(5)
        wait_for_attempts(server, None)

    assert {json.loads(webhook.body)["data"]["id"] for webhook in webhooks} == batches
    assert earlier[0].id in {webhook.id for webhook in webhooks}
    assert all(verifies(client, webhook, endpoint.signing_secret) for webhook in webhooks)


def test_the_end_of_a_batch_and_its_event_are_recorded_in_one_transaction(tmp_path: Path) -> None:
    with closing(Store(tmp_path)) as store:
        webhooks = WebhookStore(store)
        webhooks.add_endpoint(
            Endpoint(
                id="we_1", created_at=0, event_types=ALL_EVENT_TYPES, name="", url="", updated_at=0, secret=new_secret()
            )
        )
        live = BatchObject(
            id="batch_1", endpoint="", input_file_id="", completion_window="", created_at=0, expires_at=1
        )
        record = Record(batch=live, number=1, output_lifetime=0)
        store.add_batch(record)
        ended_record = replace(record, batch=replace(live, status=Status.EXPIRED, expired_at=1))

        def fail(_: int) -> None:
            raise InterruptedError

        webhooks.on_delivery = fail
        with pytest.raises(InterruptedError):
            store.save_batch(ended_record)

        saved_record = store.record("batch_1")
        assert saved_record is not None
        assert saved_record.batch == live
        assert webhooks.pending_deliveries() == []
        webhooks.on_delivery = lambda _: None
        store.save_batch(ended_record)
        assert webhooks.pending_deliveries() == [1]


def test_a_receiver_that_was_down_gets_the_event_later(server_and_client: ServerAndClient) -> None:
    server, client = server_and_client
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    subscribe(client, f"http://localhost:{port}/webhook")
    batch = run(client, chats(1))
    wait_for_attempts(server, 1)

    with Receiver(port=port) as receiver:
        server.advance(HOUR)
        (webhook,) = receiver.wait()

    assert json.loads(webhook.body)["data"]["id"] == batch.id


def test_webhook_duplicates_sends_some_events_twice(serve: Serve) -> None:
    server, client = serve(webhook_duplicates=0.5)
    with Receiver() as receiver:
        for _ in range(20):
            subscribe(client, receiver.url)
        run(client, chats(1))
        receiver.wait(20)
        wait_for_attempts(server, None)
        ids = [webhook.id for webhook in receiver.webhooks]

    assert len(set(ids)) == 20
    assert {ids.count(webhook_id) for webhook_id in ids} == {1, 2}


def test_an_endpoint_survives_a_kill_and_can_be_changed_and_deleted(serve: Serve) -> None:
    server, client = serve(admin=True)
    created = subscribe(client, "http://127.0.0.1:9/a", ["batch.failed", "batch.failed"])
    assert created.signing_secret.startswith("whsec_")
    assert created.signing_secret_hint == f"whsec_****{created.signing_secret[-4:]}"
    assert (created.object, created.event_types, created.updated_at) == (
        "webhook_endpoint",
        ["batch.failed"],
        created.created_at,
    )
    server.kill()
    server.start()
    server.advance(100)

    endpoint = client.webhooks.retrieve(created.id)
    assert endpoint.to_dict() == {key: value for key, value in created.to_dict().items() if key != "signing_secret"}
    assert client.webhooks.update(created.id, name="tests", event_types=["batch.failed"]) == endpoint
    changed = client.webhooks.update(created.id, url="http://127.0.0.1:9/b", event_types=["batch.expired"])
    assert (changed.name, changed.url, changed.event_types) == ("tests", "http://127.0.0.1:9/b", ["batch.expired"])
    assert changed.created_at == created.created_at
    assert (changed.updated_at or 0) >= created.created_at + 100
    deletion = client.webhooks.delete(created.id)
    assert (deletion.id, deletion.object, deletion.deleted) == (created.id, "webhook_endpoint.deleted", True)
    for call in (
        lambda: client.webhooks.retrieve(created.id),
        lambda: client.webhooks.update(created.id, name="x"),
        lambda: client.webhooks.delete(created.id),
        lambda: client.webhooks.rotate_secret(created.id),
        lambda: client.webhooks.test(created.id, event_type="batch.failed"),
        lambda: client.webhooks.list(after=created.id),
    ):
        with pytest.raises(NotFoundError, match=f"No webhook endpoint found with id '{created.id}'"):
            call()


def test_pending_deliveries_follow_a_new_url_and_are_deleted_with_their_endpoint(
    server_and_client: ServerAndClient,
) -> None:
    server, client = server_and_client
    with Receiver(500) as old_receiver, Receiver() as new_receiver:
        moved_endpoint, deleted_endpoint = subscribe(client, old_receiver.url), subscribe(client, old_receiver.url)
        run(client, chats(1))
        wait_for_attempts(server, 1)
        client.webhooks.update(moved_endpoint.id, url=new_receiver.url)
        client.webhooks.delete(deleted_endpoint.id)
        assert len(wait_for_attempts(server, 1)) == 1

        server.advance(HOUR)
        (webhook,) = new_receiver.wait()

        assert verifies(client, webhook, moved_endpoint.signing_secret)
        assert len(old_receiver.webhooks) == 2


def test_endpoints_are_paged_newest_first(server_and_client: ServerAndClient) -> None:
    _, client = server_and_client
    ids = [subscribe(client, "http://127.0.0.1:9/").id for _ in range(5)]

    assert [endpoint.id for endpoint in client.webhooks.list(limit=2)] == ids[::-1]
    first = client.webhooks.list(limit=2)
    assert (len(first.data), first.has_more) == (2, True)
    assert client.webhooks.list().has_more is False
    for limit in (0, 101):
        with pytest.raises(BadRequestError):
            client.webhooks.list(limit=limit)


def test_a_new_secret_replaces_the_old_one(server_and_client: ServerAndClient) -> None:
    _, client = server_and_client
    with Receiver() as receiver:
        endpoint = subscribe(client, receiver.url)
        second_secret = client.webhooks.rotate_secret(endpoint.id).signing_secret
        # The published sample has no body.
        third = client.post(f"/webhook_endpoints/{endpoint.id}/rotate_secret", cast_to=WebhookEndpointWithSecret)
        run(client, chats(1))
        (webhook,) = receiver.wait()

    secrets = [endpoint.signing_secret, second_secret, third.signing_secret]
    assert [verifies(client, webhook, secret) for secret in secrets] == [False, False, True]


def test_the_old_secret_can_stay_active_for_24_hours(server_and_client: ServerAndClient) -> None:
    server, client = server_and_client
    with Receiver() as receiver:
        endpoint = subscribe(client, receiver.url)
        second = client.webhooks.rotate_secret(endpoint.id, keep_old_secret_active_for_24_hours=True).signing_secret
        run(client, chats(1))
        receiver.wait()
        server.advance(DAY)
        run(client, chats(1))
        earlier, later = receiver.wait(2)

    secrets = (endpoint.signing_secret, second)
    assert [verifies(client, earlier, secret) for secret in secrets] == [True, True]
    assert [verifies(client, later, secret) for secret in secrets] == [False, True]


def test_a_sample_event_can_be_sent(server_and_client: ServerAndClient) -> None:
    _, client = server_and_client
    with Receiver(200, 503) as receiver:
        endpoint = subscribe(client, receiver.url, ["batch.failed"])
        results = [client.webhooks.test(endpoint.id, event_type="batch.expired") for _ in range(2)]

        assert [(result.status_code, result.success, result.event_type) for result in results] == [
            (200, True, "batch.expired"),
            (503, True, "batch.expired"),
        ]
        assert {(result.object, result.webhook_endpoint_id) for result in results} == {
            ("webhook_endpoint.test", endpoint.id)
        }
        event = unwrap(client, receiver.webhooks[0], endpoint.signing_secret)
        assert isinstance(event, BatchExpiredWebhookEvent)
    with pytest.raises(BadRequestError, match=f"could not be delivered to {receiver.url}: ConnectError"):
        client.webhooks.test(endpoint.id, event_type="batch.expired")
    with pytest.raises(BadRequestError) as error_info:
        client.webhooks.test(endpoint.id, event_type="response.completed")
    assert error_info.value.param == "event_type"


def test_event_types_lists_the_events_that_occur(client: OpenAI) -> None:
    assert client.webhooks.event_types.list().data == ALL_EVENT_TYPES


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
def test_a_receiver_on_another_computer_is_rejected(client: OpenAI, url: str) -> None:
    with pytest.raises(BadRequestError, match="localhost or a loopback address") as error_info:
        subscribe(client, url)

    assert error_info.value.param == "url"


@pytest.mark.parametrize("url", ["http://localhost:9/", "https://127.8.9.1/a?b=c", "http://[::1]:9/"])
def test_a_receiver_can_have_any_loopback_address(server_and_client: ServerAndClient, url: str) -> None:
    assert subscribe(server_and_client[1], url).url == url


@pytest.mark.parametrize(
    ("changes", "param"),
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
def test_create_rejects_invalid_parameters(client: OpenAI, changes: dict[str, Any], param: str) -> None:
    valid = {"name": "tests", "url": "http://127.0.0.1:9/", "event_types": ["batch.failed"]}
    with pytest.raises(BadRequestError) as error_info:
        client.post("/webhook_endpoints", body={**valid, **changes}, cast_to=object)

    assert error_info.value.param == param
    assert_fits(error_info.value.response.json(), "ErrorResponse")
