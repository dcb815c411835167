"""`make compare`: the same images to Nereid, to what is used instead of it, and to the bare model, in one run."""
