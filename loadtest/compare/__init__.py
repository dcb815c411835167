"""`make compare`: the same images to Nereid, to other servers for the same task, and to the bare model, in one run."""
