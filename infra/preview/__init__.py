"""The offline preview: what a stack would be, without a CLI, a cloud account or a cluster.

``python -m infra.preview --stack staging`` shows it; ``infra.preview.capture.capture`` gives it to other programs and
to tests.
"""
