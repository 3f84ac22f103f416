"""Who is told when a batch has ended, and how.

routes    `/v1/webhook_endpoints`
store     endpoints, and what is still to be delivered
courier   delivers, signed, until it is received
"""
