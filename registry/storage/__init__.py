"""The objects of a model repository, in a bucket on S3 or in a folder: addresses, reading, writing."""
