"""What no schema says. A rule is a function that yields what is wrong in a render; its name is the sentence."""

from tests.manifests.rules import kserve, objects, pods, programs, selectors

RULES = (*objects.RULES, *kserve.RULES, *pods.RULES, *programs.RULES, *selectors.RULES)
