"""Bytes on disk. Hostile input is refused here, where neither network nor tokenizer is in reach."""
