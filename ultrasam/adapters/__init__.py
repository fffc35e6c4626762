"""Small trained parts on a frozen SAM: LoRA, Med-SA and SAMUS, and their files.

Importing this package loads nothing; ``attach`` puts an adapter on a network, ``files`` reads and writes it, ``bank``
switches between several on one base.
"""
