"""What is written for a grounding: a JSON record, a picture, arrays, DICOM objects.

Every writer goes through `cxrg.files.atomic_write`, so a file appears complete or not at all, and
none writes anything that comes from a DICOM header but the SOPInstanceUID; only `cxrg.output.dicom`
copies patient and study.
"""
