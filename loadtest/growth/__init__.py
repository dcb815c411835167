"""What a fleet of pods takes for a rate, what breaks first on the way there, and how long requests wait in it."""
