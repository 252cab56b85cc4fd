"""Studies, each a command that trains small models and writes its tables to docs/measurements."""
