"""What kforge-run injects into Python processes. `sitecustomize` is there from the start, the rest when it is needed.

In an injected process this package is called as `contract.BOOTSTRAP_MODULE` says, and its files are copies.
"""
