"""The HTTP interface: each file is one group of routes. They parse, call and answer; PROTOCOL.md tells what each means."""
