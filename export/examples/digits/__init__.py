"""`digits`: which handwritten digit a picture shows.

The graph finds the ink by itself: paper and ink by the border of the picture, place and size by the ink's moments. So
the classifier behind it sees every digit in the same frame, whatever margins, contrast, polarity and size the picture
had.
"""
