"""The connections to Temporal: credentials, converters, namespaces and health."""
