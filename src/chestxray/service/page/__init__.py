"""The reading page at ``/``: the files of ``web/`` and the routes that serve them.

Does not: answer about radiographs; it asks the API (``api``) as any client does.
"""
