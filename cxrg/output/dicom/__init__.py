"""DICOM objects made from a result: they belong to the study of the image, and into the archive.

Unlike all else that cxrg writes they hold what the source says of patient and study (PS3.3 C.7.1,
C.7.2), without which no archive files them; ``--deidentify`` leaves it out. Their UIDs follow from
the source, the phrase and the settings, so that a repeated run makes the same objects again and an
archive keeps one. Coordinates are those of the stored pixels, from 0 to Columns and Rows (PS3.3
C.10.5, C.18.6), also where cxrg brought the picture upright.

highdicom, of the extra ``cxrg[dicom]``, builds them; it is imported when one is written.
"""
