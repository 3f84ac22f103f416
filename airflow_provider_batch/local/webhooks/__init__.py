"""Webhooks: notifications that a batch has ended.

    store     endpoints and pending deliveries
    delivery  signs each event and delivers it, with retries, until the receiver accepts it

The routes are in `http/webhooks`.
"""
