"""The server: predictions of the current champion over HTTP, what comes back, and pages where a person sees all of it.

An app: it parses, calls and shows. Serving never changes a model.
"""
