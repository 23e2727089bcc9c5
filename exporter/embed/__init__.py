"""From a bundle to a library for an app: artifact, typed class, pre- and post-processing, a self-test.

One template folder a platform: `describe` says what a template is told of the bundle, `write` renders it.
"""
