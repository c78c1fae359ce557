"""Results for DICOM files as DICOM objects, which carry the identifiers of their source; only where asked for."""
