"""What is written for a grounding: a JSON record, a picture, arrays.

Every writer goes through `cxrg.artefacts.files.whole`, so a file is there whole or not at all, and
none writes anything that comes from a DICOM header but the SOPInstanceUID.
"""
