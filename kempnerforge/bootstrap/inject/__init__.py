"""What kforge-run injects into Python processes. `process` is there from the start, the rest when it is needed.

In an injected process the package above is called as `contract.BOOTSTRAP_MODULE` says, and the files are copies.
"""
