"""The machinery: cases, processes of their own, the measured loop, records, tables."""
