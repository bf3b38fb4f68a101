"""File -> image: DICOM, PNG, JPEG and TIFF become grey pixels on the model's square."""
