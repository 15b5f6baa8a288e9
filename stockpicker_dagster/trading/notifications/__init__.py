"""Notices about proposals, decisions, executions, halts and rankings: what is said, to whom, and how it gets there.

A notice informs; nothing can be decided by answering one. It is a row of the outbox before it is sent, so that a target
that fails is tried again, and a notice that was sent is not sent twice by us.
"""
