"""Where images come from: the embedded digits, TFDS, folders, records, sample files."""
