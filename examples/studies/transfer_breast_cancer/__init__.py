"""The study of breast cancer cohorts: endpoint, cohorts, sources, methods, tables and figure."""
