"""The judgement of a version from a repository that others write to, in processes with limits."""
