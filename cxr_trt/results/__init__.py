"""What is written beside the table of scores: heat maps, class maps and DICOM results."""
