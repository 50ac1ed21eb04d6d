"""What a job went through, over all its attempts: understood once (`story`), and shown as text, as a page, as JSON.

Everything here is pure: journals and the time go in, text comes out.
"""
