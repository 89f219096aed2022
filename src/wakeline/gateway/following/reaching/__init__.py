"""How Temporal is reached: with which credentials and converters, in which namespaces, and how it is now."""
