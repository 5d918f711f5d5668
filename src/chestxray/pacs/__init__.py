"""The DICOM node: receives radiographs from a PACS, judges them and sends the answers back.

An answer is a few instances in the study of its source: a structured report (``report``), and for
each bundle that answers and whose heatmap is validated the radiograph under it (``overlay``). They
take their UIDs, their dates and their patient from ``identity``, so that an answer made twice is
one object.

Does not: decode pixels, or decide what of them is answered or refused (``assessment``).
"""
