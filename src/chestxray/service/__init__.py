"""The HTTP service: questions in, calibrated answers or problem details out.

``app`` makes the application and ``server`` runs it; ``answers`` turns a file's bytes into the
answer's model, for the service and the command line alike.

Does not: decode or infer (``imaging`` and ``inference`` do), keep anything of a request after its
answer, or read the environment before :func:`settings.load_settings` is called. This file imports
nothing, so that the command line may use ``answers`` without loading FastAPI.
"""
