"""The gateway: accepts, stores and delivers events. ARCHITECTURE.md describes its rooms."""
