"""How one request is answered, in a batch or alone.

responder   the protocol of whoever answers: `ModelRequest` in, `Reply` out
offline     answers without a model; `schema_answer` (with `classify`), `embedding` and `moderation` make them up
upstream    lets another server answer
faulty      carries out the faults of answers, whoever answers; `corrupt` is what a damaged answer looks like
prompt      reads what a request contains
body_check  refuses what OpenAI would refuse
replies     the bodies of answers, in each endpoint's shape
"""
