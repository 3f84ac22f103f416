"""How one request is answered, in a batch or alone.

responder       who is asked, and what comes back
offline         answers without a model; `schema_answer` (with `classify`), `embedding` and `moderation` make them up
upstream        lets another server answer
prompt          what a request says
body_check      refuses what OpenAI would refuse
replies         the bodies of answers, in each endpoint's shape
"""
