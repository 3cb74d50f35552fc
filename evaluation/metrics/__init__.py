"""The measures that the literature uses, as functions of arrays. They need neither models nor DICOM."""
