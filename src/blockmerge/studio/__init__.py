"""The studio: a page on this machine where a merge is shaped by hand and run (extra ``studio``).

The page asks, :mod:`.server` answers with calls of the api, :mod:`.guard` keeps strangers out, :mod:`.jobs` merges one
thing after the other. The front end in ``static`` is plain ES modules and SVG, served as it stands.
"""
