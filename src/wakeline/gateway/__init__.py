"""The gateway: publish in, devices out. Read it in the order an event travels; ARCHITECTURE.md is the map."""
