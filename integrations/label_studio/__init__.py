"""An ML backend for Label Studio: `python -m integrations.label_studio --model <name>`; docs/labelling.md."""
