"""`digits`: which handwritten digit an image shows.

The graph finds the ink by itself: paper and ink by the border of the image, place and size by the ink's moments. So the
classifier after it gets every digit in the same frame, for any margins, contrast, polarity and size of the image.
"""
