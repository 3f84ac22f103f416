"""Webhooks: who is notified when a batch has ended, and how.

    store     endpoints, and the deliveries that are still to be made
    delivery  delivers each one, signed, until the receiver accepts it

The routes are in `http/webhooks`.
"""
