"""What the API looks like to its clients.

objects   a file and a batch, and their ids
errors    OpenAI's error shape
tokens    token counts of one answer, or of many
"""
