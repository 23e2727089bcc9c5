"""A browser as a device: the page, the server that gives it its job, and Chromium where we start it."""
