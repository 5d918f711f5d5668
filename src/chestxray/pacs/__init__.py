"""The DICOM node: receives radiographs from a PACS, judges them and sends the answers back.

An answer is two instances in the study of its source: a structured report (``report``) and the
radiograph under its heatmap (``overlay``). Both take their UIDs, their dates and their patient from
``identity``, so that an answer made twice is one object.

Does not: decode pixels (``imaging``), or decide anything about them (``inference``).
"""
