"""What ``blockmerge demo`` works on: two tiny finetuned models, held-out text of both kinds, and a forward pass.

Data beside this module, made by ``tools/train_demo.py``: ``models/code``, ``models/prose``, ``text/*.txt``.
"""
