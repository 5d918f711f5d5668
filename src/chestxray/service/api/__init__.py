"""The API: its routes, the models of its questions and answers, and what it says of itself.

Does not: read bodies, queue requests or turn errors into responses (``http`` does). This file
imports nothing, so that the command line may use ``answers`` and ``schemas`` without loading
FastAPI.
"""
