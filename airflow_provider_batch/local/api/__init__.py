"""The API's wire format.

objects   file and batch objects, and their ids
errors    error responses in OpenAI's shape
tokens    token counts of an answer or a batch
"""
