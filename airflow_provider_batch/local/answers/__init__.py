"""How one request is answered, in a batch or synchronously.

responder   the protocol that every responder implements: `ModelRequest` in, `Reply` out
offline     answers without a model, computed by `skills` or made up by `schema_answer` (with `classify` or `examples`),
            `embedding` and `moderation`
upstream    forwards requests to another server
faulty      injects faults into the answers of any responder; `corrupt` defines what a corrupted answer looks like
prompt      reads the texts, the schema and the token counts of a request
body_check  rejects the bodies that OpenAI would reject
replies     the bodies of answers, in the format of each endpoint
"""
