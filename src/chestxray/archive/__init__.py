"""Scoring of archives: a row for every file of a folder, a zip, a tar or a list, resumable.

``files`` finds and reads them, ``scoring`` makes the rows, ``work`` keeps what is done and makes it
whole, ``cluster`` has it done elsewhere, ``run`` puts them together.
"""
