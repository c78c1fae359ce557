"""Results of DICOM files as DICOM objects. They carry the identifiers of their source, and are made only on request."""
