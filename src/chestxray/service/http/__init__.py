"""What is HTTP: connections, bodies, places, keys, headers, and errors as problem details.

Does not: know the API's questions and answers (``api``) or the reading page (``page``), or read
settings. This file imports nothing, so that the command line may use ``problems`` without loading
FastAPI.
"""
