"""The web page: application, model, request queue, security."""
