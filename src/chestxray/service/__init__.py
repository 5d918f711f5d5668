"""The HTTP service: questions in, calibrated answers or problem details out.

``app`` makes the application of ``api`` and ``page``, which stand on ``http``, and ``server`` runs
it; ``api.answers`` turns a file's bytes into the answer's model, for the service and the command
line alike.

Does not: decode or infer (``imaging`` and ``inference`` do), keep anything of a request after its
answer, or read the environment before :func:`settings.load_settings` is called. This file imports
nothing, so that the command line may use ``api.answers`` without loading FastAPI.
"""
