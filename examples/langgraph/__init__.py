"""A graph of LangGraph, its nodes and its model's tokens watched."""
